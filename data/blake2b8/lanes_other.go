//go:build !amd64

package blake2b8

const hasLanes = false

func sumLanes([][32]byte, []byte, [][]byte) { panic("blake2b8: no lanes") }

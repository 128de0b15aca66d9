//go:build !race

package image_test

// raced says that the race detector slows everything down.
const raced = false

//go:build !unix

package main

// onResize does nothing: there is no signal that tells.
func onResize(func()) (stop func()) { return func() {} }

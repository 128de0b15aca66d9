//go:build !(linux && amd64)

package main

import "github.com/tradle/cloudpal"

// makeCoreImage refuses: the image has files of a Debian on x86-64.
func makeCoreImage(string, string) error {
	return cloudpal.E("make the core's image", cloudpal.Missing, nil).WithHint("make it on Debian on x86-64")
}

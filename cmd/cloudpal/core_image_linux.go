//go:build amd64

package main

import (
	"os"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/pal/image"
)

// makeCoreImage makes the core's image of this very program.
func makeCoreImage(dir, kernelDir string) error {
	self, err := os.Executable()
	if err != nil {
		return cloudpal.E("find this program", "", err)
	}
	k, err := findKernel(kernelDir)
	if err != nil {
		return err
	}
	return image.Write(dir, image.Parts{Program: self, Kernel: k, Mke2fs: "/sbin/mke2fs"})
}

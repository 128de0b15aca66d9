// Package module loads the kernel modules that a core needs. The core's image
// brings them along, for the kernel that its host boots it with.
package module

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// Dir is where the image has the modules, each as NAME.ko, and the file Order.
const (
	Dir   = "/lib/modules"
	Order = "order" // a list: one name a line, in the order to load them; "-" before a name that may fail
)

// Needed are the modules that there is no core without.
var Needed = []string{
	"wireguard",
	"dm_crypt", "xts", "ecb", // the volume's cipher; AES is built in
	"nf_tables", "nft_ct", "nft_masq", "nft_chain_nat", "nft_reject_inet",
}

// Useful are those that some machines can use.
var Useful = []string{
	"aesni_intel", // with a processor that has AES
}

// maxOrder bounds the list in bytes.
const maxOrder = 64 << 10

// Load loads what the list in dir says. What is there already stays.
func Load(dir string) error {
	const op = "load the kernel's modules"
	list, err := os.ReadFile(path.Join(dir, Order))
	if err != nil {
		return cloudpal.E(op, cloudpal.Missing, err).WithHint("this runs in a core only: boot its image with the kernel that it was made for")
	}
	if len(list) > maxOrder {
		return cloudpal.E(op, cloudpal.Invalid, errors.New("the list is too long"))
	}
	for name := range strings.FieldsSeq(string(list)) {
		name, useful := strings.CutPrefix(name, "-")
		if err := load(path.Join(dir, path.Base(name)+".ko")); err != nil && !useful {
			return cloudpal.E(op, "", fmt.Errorf("%s: %w", name, err))
		}
	}
	return nil
}

func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != unix.EEXIST {
		return err
	}
	return nil
}

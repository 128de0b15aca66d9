package corestore

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/storage"
)

// checkFolder refuses a folder that is somebody else's, before anything is
// written there, and one without a store where there must be one.
func checkFolder(fs vfs.FS, dir string, existing bool) error {
	names, err := fs.List(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && dir != "" {
		return cloudpal.E("open the store "+dir, kindOf(err), err)
	}
	switch ours := slices.ContainsFunc(names, isMark); {
	case ours:
		return nil
	case existing:
		return cloudpal.E("open the store "+dir, cloudpal.NotExist, nil)
	}
	if at := slices.IndexFunc(names, isForeign); at >= 0 {
		return cloudpal.E("make the store "+dir, cloudpal.Exist, fmt.Errorf("the folder has other files, such as %.80q", names[at])).
			WithHint("take a folder that is empty or not there yet; a store's own folder has a file " + keyFile)
	}
	return nil
}

// isMark says that a folder with such a file is a store.
func isMark(name string) bool { return name == keyFile || strings.HasPrefix(name, "marker.manifest.") }

// isForeign says that a file is none that the making of a store leaves behind
// where it is cut short.
func isForeign(name string) bool {
	for _, prefix := range []string{keyFile, "LOCK", "MANIFEST", "OPTIONS", "marker.", "temporary.", "CURRENT", "lost+found"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return !strings.HasSuffix(name, ".log") && !strings.HasSuffix(name, ".sst")
}

// isEmpty reports whether nothing was ever kept in a database.
func isEmpty(disk *storage.Store) (bool, error) {
	for _, err := range disk.Cores() {
		return false, err
	}
	for _, err := range disk.Aliases(nil) {
		return false, err
	}
	return true, nil
}

func kindOf(err error) cloudpal.Kind {
	if errors.Is(err, os.ErrPermission) {
		return cloudpal.Denied
	}
	return cloudpal.KindOf(err)
}

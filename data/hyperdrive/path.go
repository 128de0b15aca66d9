package hyperdrive

import (
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/tradle/cloudpal"
)

// MaxName is the most bytes that the name of a file may have. Linux has the
// same limit for paths.
const MaxName = 4096

// Resolve returns what name means seen from base, as the original's path
// resolver has it: both / and \ separate, empty parts and "." mean nothing,
// ".." leaves a folder, and a name that begins with a separator, or with a
// drive or scheme such as "C:/" and "file://", is absolute. The result begins
// with / and ends with none, save the root's, "/". Leaving the root is an
// error, cloudpal.Invalid.
func Resolve(base, name string) (string, error) {
	parts, absolute := splitName(name)
	path := "/"
	if !absolute {
		above, ok := splitName(base)
		if !ok {
			return "", badName("it is seen from a name that is not absolute")
		}
		var err error
		if path, err = walk(path, above); err != nil {
			return "", err
		}
	}
	return walk(path, parts)
}

// walk goes from path to where parts lead.
func walk(path string, parts []string) (string, error) {
	for _, part := range parts {
		switch {
		case part == "" || part == ".":
		case part == "..":
			if path == "/" {
				return "", badName("it leaves the drive")
			}
			path = max(path[:strings.LastIndexByte(path, '/')], "/")
		case path == "/":
			path += part
		default:
			path += "/" + part
		}
	}
	return path, nil
}

// splitName returns a name's parts, without what makes it absolute.
func splitName(name string) (parts []string, absolute bool) {
	parts = strings.FieldsFunc(name, isSeparator)
	if name != "" && isSeparator(rune(name[0])) {
		return parts, true
	}
	first, _, more := strings.Cut(strings.ReplaceAll(name, `\`, "/"), "/")
	if !more || !strings.HasSuffix(first, ":") {
		return parts, false
	}
	if first == "file:" || len(utf16.Encode([]rune(first))) == 2 {
		return parts[1:], true
	}
	return afterHost(name), true
}

func isSeparator(r rune) bool { return r == '/' || r == '\\' }

// afterHost returns the parts of a name with a scheme, such as
// "http://host/path": those after the third separator, or none.
func afterHost(name string) []string {
	all := strings.Split(strings.ReplaceAll(name, `\`, "/"), "/")
	return all[min(3, len(all)):]
}

// cleanName returns the name under which a drive has what a caller calls name.
func cleanName(name string) (string, error) {
	if isClean(name) {
		return name, nil
	}
	clean, err := Resolve("/", name)
	if err != nil {
		return "", err
	}
	if clean == "/" {
		return "", badName("a file is not called /")
	}
	if !isClean(clean) {
		return "", badName("it is too long, or not UTF-8, or has a zero byte")
	}
	return clean, nil
}

// cleanFolder returns the prefix of a folder's names without its last slash:
// "" for the root.
func cleanFolder(folder string) (string, error) {
	if folder == "" || folder == "/" {
		return "", nil
	}
	clean, err := Resolve("/", folder)
	if err != nil || clean == "/" {
		return "", err
	}
	return cleanName(clean)
}

// isClean tells whether a key is a name as drives write them. Others may have
// any bytes as keys; those which no name resolves to cannot be asked for, so
// listings leave them out, and no file system ever sees them.
func isClean(name string) bool {
	if len(name) < 2 || len(name) > MaxName || name[0] != '/' || !utf8.ValidString(name) {
		return false
	}
	if strings.ContainsAny(name, "\\\x00") {
		return false
	}
	for part := range strings.SplitSeq(name[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

// badName does not repeat the name: errors may go to logs, and names are the
// person's.
func badName(why string) error {
	return cloudpal.E("resolve a name", cloudpal.Invalid, errors.New(why))
}

// Package dav serves a drive over WebDAV (RFC 4918), to the file managers of
// phones and laptops.
//
//	http.Handle("/files/", dav.Handler(drive, "/files"))
//
// It asks nobody for a password: put what does in front of it.
//
// # Folders
//
// Drives keep no folders, only files with names that have folders in them.
// WebDAV clients make a folder before they put something into it, and expect it
// to be there when it is empty. So a folder that holds nothing has a file
// ".keep" of no bytes, as is the custom with git, which listings here leave
// out. To other programs, and in folders that a mirror makes, it is a file.
//
// # What clients can rely on
//
// An answer to a change means that the change is on disk. A file that is being
// put is as it was until all of it has come; if its sender goes away, it stays
// so. Moving, also onto what is there, is one change, of a folder as of a
// file, and copying a file copies no content. When a file was last changed is
// kept in its metadata, as {"mtime": milliseconds since 1970}, beside whatever
// else is there.
//
// Locks are kept in memory, and end with the Handler. Properties that clients
// give a file are kept in its metadata, under "props"; folders have none. Links
// are followed within the drive, and moved and removed
// as what they are; those that lead to nothing are not shown, and make way for
// what is put in their place.
package dav

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"golang.org/x/net/webdav"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

// maxXML is the most bytes that a request's XML may have.
const maxXML = 1 << 20

// Handler serves a drive. Prefix is what paths begin with that is none of the
// drive's, such as "/files".
func Handler(d *hyperdrive.Drive, prefix string) http.Handler {
	h := &webdav.Handler{Prefix: strings.TrimSuffix(prefix, "/"), FileSystem: FileSystem(d), LockSystem: webdav.NewMemLS()}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			if r.Header.Get("Content-Range") != "" { // RFC 9110, 14.4: a part must not replace the whole
				http.Error(w, "a part of a file cannot be put", http.StatusBadRequest)
				return
			}
			r.Body = body{r.Body}
		} else {
			r.Body = http.MaxBytesReader(w, r.Body, maxXML)
		}
		if r.Method == "MOVE" && r.Header.Get("Overwrite") == "" {
			r.Header.Set("Overwrite", "T") // as RFC 4918, 10.6, has it; package webdav takes F
		}
		// What a drive has may be a stranger's, and must not act in our name.
		w.Header().Set("Content-Security-Policy", "sandbox")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestKey{}, &request{method: r.Method})))
	})
}

// body hides what else a request's body can do than be read, so that the file
// reads it and hears of its errors.
type body struct {
	r interface{ Read([]byte) (int, error) }
}

func (b body) Read(p []byte) (int, error) { return b.r.Read(p) }
func (b body) Close() error               { return nil } // the server closes its own

// A request is what several calls for one HTTP request share.
type request struct {
	method string
	// remove is what a MOVE or COPY removes first, to overwrite it. It is
	// removed in one change with that which comes in its place.
	remove string
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		return r
	}
	return new(request)
}

// FileSystem returns a drive as a webdav.FileSystem, for a webdav.Handler of
// the caller's. Moving onto what is there is one change only through Handler.
func FileSystem(d *hyperdrive.Drive) webdav.FileSystem { return system{d} }

type system struct{ drive *hyperdrive.Drive }

// keep is the file of a folder that holds nothing.
const keep = ".keep"

// pathError gives an error the kind that package webdav asks for.
func pathError(op, name string, err error) error {
	for kind, std := range map[cloudpal.Kind]error{
		cloudpal.NotExist: fs.ErrNotExist, cloudpal.Exist: fs.ErrExist, cloudpal.Denied: fs.ErrPermission, cloudpal.Invalid: fs.ErrInvalid,
	} {
		if errors.Is(err, kind) {
			err = std
		}
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// place returns the name in the drive of a path of which the folder is there,
// with the links on the way to it followed.
func (s system) place(ctx context.Context, op, name string) (string, error) {
	clean, err := hyperdrive.Resolve("/", "/"+strings.TrimPrefix(name, "/"))
	if err != nil {
		return "", pathError(op, name, err)
	}
	if clean == "/" {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrPermission}
	}
	parent, folder, err := s.drive.Walk(ctx, path.Dir(clean))
	if err == nil && !folder {
		err = cloudpal.NotExist
	}
	if err != nil {
		return "", pathError(op, name, err)
	}
	return path.Join("/", parent.Name, path.Base(clean)), nil
}

// isThere tells whether there is a file, a link or a folder of that name.
func (s system) isThere(ctx context.Context, name string) (bool, error) {
	if there, err := s.drive.Exists(ctx, name); there || err != nil {
		return there, err
	}
	for _, err := range s.drive.List(ctx, name) {
		return err == nil, err
	}
	return false, nil
}

// Mkdir makes a folder.
func (s system) Mkdir(ctx context.Context, name string, _ fs.FileMode) error {
	at, err := s.place(ctx, "mkdir", name)
	if err != nil {
		return err
	}
	return s.change(ctx, "mkdir", name, func(b *hyperdrive.Batch) error {
		removed, err := s.makeWay(ctx, b, at)
		if err != nil {
			return err
		}
		if there, err := s.isThere(ctx, at); err != nil || there && !removed {
			return errors.Join(err, fs.ErrExist)
		}
		return b.Put(ctx, at+"/"+keep, nil, hyperdrive.Attr{})
	})
}

// change makes one change that is on disk afterwards.
func (s system) change(ctx context.Context, op, name string, do func(*hyperdrive.Batch) error) error {
	b := s.drive.Batch()
	defer b.Cancel()
	err := do(b)
	if err == nil {
		err = b.Flush(ctx)
	}
	if err == nil {
		err = s.drive.Sync()
	}
	if err != nil {
		return pathError(op, name, err)
	}
	return nil
}

// RemoveAll removes a file, a link, or a folder with all that is below it.
// What a MOVE or COPY overwrites is only noted, and removed with what comes in
// its place.
func (s system) RemoveAll(ctx context.Context, name string) error {
	at, err := s.place(ctx, "remove", name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if r := requestOf(ctx); r.method == "MOVE" || r.method == "COPY" {
		r.remove = at
		return nil
	}
	return s.change(ctx, "remove", name, func(b *hyperdrive.Batch) error {
		if err := s.remove(ctx, b, at); err != nil {
			return err
		}
		return s.keepFolder(ctx, b, at)
	})
}

// makeWay removes what was noted to be removed, and reports whether that was
// at.
func (s system) makeWay(ctx context.Context, b *hyperdrive.Batch, at string) (bool, error) {
	r := requestOf(ctx)
	if r.remove == "" || r.remove != at {
		return false, nil
	}
	r.remove = ""
	return true, s.remove(ctx, b, at)
}

func (s system) remove(ctx context.Context, b *hyperdrive.Batch, at string) error {
	if err := b.Delete(at); err != nil {
		return err
	}
	for e, err := range s.drive.List(ctx, at) {
		if err != nil {
			return err
		}
		if err := b.Delete(e.Name); err != nil {
			return err
		}
	}
	return nil
}

// keepFolder keeps the folder of a name that goes, if nothing else is in it.
func (s system) keepFolder(ctx context.Context, b *hyperdrive.Batch, gone string) error {
	folder := path.Dir(gone)
	if folder == "/" {
		return nil
	}
	for c, err := range s.drive.ReadDir(ctx, folder) {
		if err != nil {
			return err
		}
		if c.Name != path.Base(gone) {
			return nil
		}
	}
	return b.Put(ctx, folder+"/"+keep, nil, hyperdrive.Attr{})
}

// Rename moves a file, a link, or a folder with all that is below it.
func (s system) Rename(ctx context.Context, oldName, newName string) error {
	from, err := s.place(ctx, "rename", oldName)
	if err != nil {
		return err
	}
	to, err := s.place(ctx, "rename", newName)
	if err != nil {
		return err
	}
	if from == to || strings.HasPrefix(to, from+"/") || strings.HasPrefix(from, to+"/") {
		return &fs.PathError{Op: "rename", Path: oldName, Err: fs.ErrInvalid}
	}
	return s.change(ctx, "rename", oldName, func(b *hyperdrive.Batch) error {
		removed, err := s.makeWay(ctx, b, to)
		if err != nil {
			return err
		}
		if there, err := s.isThere(ctx, to); err != nil || there && !removed {
			return errors.Join(err, fs.ErrExist)
		}
		if err := s.move(ctx, b, from, to); err != nil {
			return err
		}
		if path.Dir(to) == path.Dir(from) {
			return nil
		}
		return s.keepFolder(ctx, b, from)
	})
}

// move moves what is there of a name and below it.
func (s system) move(ctx context.Context, b *hyperdrive.Batch, from, to string) error {
	moved := 0
	one := func(e hyperdrive.Entry) error {
		moved++
		return errors.Join(b.PutEntry(to+e.Name[len(from):], e), b.Delete(e.Name))
	}
	e, err := s.drive.Entry(ctx, from)
	switch {
	case err == nil:
		err = one(e)
	case errors.Is(err, cloudpal.NotExist):
		err = nil
	}
	if err != nil {
		return err
	}
	for e, err := range s.drive.List(ctx, from) {
		if err == nil {
			err = one(e)
		}
		if err != nil {
			return err
		}
	}
	if moved == 0 {
		return fs.ErrNotExist
	}
	return nil
}

// Package atomicfile writes files that are either there in full or not there at
// all: into a temporary file in the same folder, synced, then renamed. (The
// well-known github.com/google/renameio does not build for Windows, nor sync the
// folder, nor follow a link.)
package atomicfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// bufferSize keeps writers of many small pieces (CSV, PNG) from one system call
// a piece; larger pieces go straight through.
const bufferSize = 64 << 10

// Write makes the file at path hold what write writes. Until write has returned
// nil and the bytes are on the disk, path is what it was before: absent or the
// old file, even if the process is killed or the disk is full. On any error, and
// if write panics, the temporary file is removed.
//
// A new file gets mode 0666 less the umask, a replaced one keeps its mode, and a
// symbolic link at path stays a link: the file it leads to is replaced. The
// folder must exist. The temporary file is named ".<base>.<random>.tmp"; only a
// killed process leaves one behind.
func Write(path string, write func(io.Writer) error) (err error) {
	mode := fs.FileMode(0o666)
	exists := false
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
		if st, err := os.Stat(path); err == nil {
			if !st.Mode().IsRegular() {
				return fmt.Errorf("atomicfile: %s is not a regular file; choose another path", path)
			}
			mode, exists = st.Mode().Perm(), true
		}
	}
	f, err := create(path, mode)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if exists {
		if err := f.Chmod(mode); err != nil {
			return err
		}
	}
	b := bufio.NewWriterSize(f, bufferSize)
	if err := write(b); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	done = true
	syncDir(filepath.Dir(path))
	return nil
}

// WriteFile makes the file at path hold data; see Write.
func WriteFile(path string, data []byte) error {
	return Write(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// create opens a new file beside path. Unlike os.CreateTemp it leaves the mode
// to the umask, so that what a run writes is as readable as any other file.
func create(path string, mode fs.FileMode) (*os.File, error) {
	dir, base := filepath.Split(path)
	for range 100 {
		name := fmt.Sprintf("%s.%s.%08x.tmp", dir, base, rand.Uint32())
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("atomicfile: no free temporary name beside %s", path)
}

// syncDir asks that the rename itself survive a power cut. File systems that
// cannot sync a folder say so with an error that changes nothing: the file is
// whole either way.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}

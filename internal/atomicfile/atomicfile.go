// Package atomicfile writes files completely or not at all: it writes a
// temporary file in the same folder, syncs it and renames it. (The well-known
// github.com/google/renameio does not build for Windows, does not sync the
// folder and does not follow links.)
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

// bufferSize saves system calls for writers of many small pieces (CSV, PNG);
// larger pieces are written directly.
const bufferSize = 64 << 10

// Write writes the file at path with the bytes that write writes. Until write
// has returned nil and the bytes are on the disk, path does not change: it is
// absent or the old file, even if the process is killed or the disk is full. On
// any error, and if write panics, the temporary file is removed.
//
// A new file gets mode 0666 without the bits of the umask; a replaced file keeps
// its mode. If path is a symbolic link, it stays a link and its target is
// replaced. The folder must exist. The temporary file is named
// ".<base>.<random>.tmp"; only a killed process leaves one behind.
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

// WriteFile writes data to the file at path; see Write.
func WriteFile(path string, data []byte) error {
	return Write(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// create makes a new temporary file in the folder of path. Unlike os.CreateTemp
// it leaves the mode to the umask, so that the file has the same permissions as
// other files.
func create(path string, mode fs.FileMode) (*os.File, error) {
	dir, base := filepath.Split(path)
	for range 100 {
		name := fmt.Sprintf("%s.%s.%08x.tmp", dir, base, rand.Uint32())
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("atomicfile: no free name for a temporary file in the folder of %s", path)
}

// syncDir syncs the folder, so that a power cut does not undo the rename.
// Errors of file systems that cannot sync a folder are ignored, because the
// file is complete in any case.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}

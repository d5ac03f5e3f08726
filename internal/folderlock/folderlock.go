// Package folderlock prevents two programs from working in one folder at the same
// time. It uses a lock of the operating system, which ends with the process that
// holds it, however the process ends.
package folderlock

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// File is the name of the lock file in the folder. It is never removed.
const File = ".lock"

// ErrBusy is the error if another program, or another part of this one, holds
// the lock of the folder.
var ErrBusy = errors.New("another program is working in the folder")

// A Lock is held until Unlock.
type Lock struct{ file *flock.Flock }

// Shared takes a shared lock of an existing folder, which several readers can
// hold.
func Shared(dir string) (*Lock, error) { return take(dir, (*flock.Flock).TryRLock) }

// Exclusive takes an exclusive lock of an existing folder.
func Exclusive(dir string) (*Lock, error) { return take(dir, (*flock.Flock).TryLock) }

// Wait takes an exclusive lock of an existing folder as soon as no one else holds a
// lock, or returns the error of ctx.
func Wait(ctx context.Context, dir string) (*Lock, error) {
	return take(dir, func(f *flock.Flock) (bool, error) { return f.TryLockContext(ctx, 100*time.Millisecond) })
}

func take(dir string, try func(*flock.Flock) (bool, error)) (*Lock, error) {
	f := flock.New(filepath.Join(dir, File))
	switch ok, err := try(f); {
	case err != nil:
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	case !ok:
		return nil, fmt.Errorf("%s: %w", dir, ErrBusy)
	}
	return &Lock{f}, nil
}

// Unlock releases the lock. It does nothing on a nil Lock.
func (l *Lock) Unlock() error {
	if l == nil {
		return nil
	}
	return l.file.Unlock()
}

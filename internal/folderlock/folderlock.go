// Package folderlock keeps two programs from working in one folder at a time. The
// lock is the operating system's: it ends with the process that holds it, however
// that ends.
package folderlock

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// File is the name of the lock's file inside the folder. It stays there.
const File = ".lock"

// ErrBusy says that another program, or another part of this one, works in the
// folder.
var ErrBusy = errors.New("another program is working in the folder")

// A Lock is held until Unlock.
type Lock struct{ file *flock.Flock }

// Shared takes the lock of an existing folder together with others that read it.
func Shared(dir string) (*Lock, error) { return take(dir, (*flock.Flock).TryRLock) }

// Exclusive takes the lock of an existing folder alone.
func Exclusive(dir string) (*Lock, error) { return take(dir, (*flock.Flock).TryLock) }

// Wait takes the lock of an existing folder alone, as soon as nobody else has it, or
// returns the error of ctx.
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

// Unlock gives the lock back. A nil Lock holds nothing.
func (l *Lock) Unlock() error {
	if l == nil {
		return nil
	}
	return l.file.Unlock()
}

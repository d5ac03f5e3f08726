package folderlock

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	a, err := Shared(dir)
	require.NoError(t, err)
	b, err := Shared(dir)
	require.NoError(t, err)
	_, err = Exclusive(dir)
	require.ErrorIs(t, err, ErrBusy)
	require.NoError(t, a.Unlock())
	_, err = Exclusive(dir)
	require.ErrorIs(t, err, ErrBusy)
	require.NoError(t, b.Unlock())
	c, err := Exclusive(dir)
	require.NoError(t, err)
	_, err = Shared(dir)
	require.ErrorIs(t, err, ErrBusy)
	require.NoError(t, c.Unlock())
	require.NoError(t, (*Lock)(nil).Unlock())

	_, err = Shared(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestWait(t *testing.T) {
	dir := t.TempDir()
	a, err := Exclusive(dir)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = Wait(ctx, dir)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	got := make(chan error)
	go func() {
		b, err := Wait(t.Context(), dir)
		if err == nil {
			err = b.Unlock()
		}
		got <- err
	}()
	require.NoError(t, a.Unlock())
	require.NoError(t, <-got)
}

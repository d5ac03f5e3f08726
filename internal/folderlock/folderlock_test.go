package folderlock

import (
	"os"
	"path/filepath"
	"testing"

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

package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// names lists what lies in dir, temporary files included.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteCreatesAndReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.csv")
	require.NoError(t, WriteFile(path, []byte("first")))
	require.NoError(t, os.Chmod(path, 0o646))
	require.NoError(t, WriteFile(path, []byte("2nd")))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "2nd", string(got))
	require.Equal(t, []string{"a.csv"}, names(t, dir))
	if runtime.GOOS != "windows" {
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o646), st.Mode().Perm(), "the mode of the replaced file, which no usual umask leaves")
	}
}

func TestNothingShowsBeforeTheEnd(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	require.NoError(t, Write(path, func(w io.Writer) error {
		_, err := w.Write(make([]byte, 2*bufferSize))
		require.NoFileExists(t, path)
		return err
	}))
	require.FileExists(t, path)
}

func TestFailureLeavesTheOldFile(t *testing.T) {
	full := errors.New("no space left on device")
	for _, c := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{"before the first byte", func(io.Writer) error { return full }},
		{"in the middle", func(w io.Writer) error {
			w.Write(make([]byte, 3*bufferSize))
			return full
		}},
		{"by panic", func(w io.Writer) error {
			w.Write([]byte("x"))
			panic(full)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a")
			require.NoError(t, WriteFile(path, []byte("old")))
			err := func() (err error) {
				defer func() {
					if r := recover(); r != nil {
						err = r.(error)
					}
				}()
				return Write(path, c.write)
			}()
			require.ErrorIs(t, err, full)
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "old", string(got))
			require.Equal(t, []string{"a"}, names(t, dir))
		})
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	require.Error(t, WriteFile(filepath.Join(dir, "absent", "a"), nil))
	require.ErrorContains(t, WriteFile(dir, nil), "not a regular file")
	require.Empty(t, names(t, dir))
}

func TestSymbolicLinkStaysALink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	require.NoError(t, WriteFile(target, []byte("old")))
	if err := os.Symlink("target", link); err != nil {
		t.Skip(err)
	}
	require.NoError(t, WriteFile(link, []byte("new")))
	got, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "new", string(got))
	st, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, st.Mode()&os.ModeSymlink)
}

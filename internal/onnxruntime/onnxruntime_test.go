package onnxruntime

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFind(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("libraries have other names on this system")
	}
	dir := t.TempDir()
	touch := func(path string) string {
		path = filepath.Join(dir, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		return path
	}
	old := touch("venv/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.9.0")
	venv := touch("venv/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.24.1")
	plain := touch("release/lib/libonnxruntime.so.1.30.0")
	link := filepath.Join(dir, "release/lib/libonnxruntime.so")
	require.NoError(t, os.Symlink(plain, link))
	require.Equal(t, []int{9, 24, 30, 0}, []int{Version(old), Version(venv), Version(link), Version("libonnxruntime.so")})

	t.Setenv("LD_LIBRARY_PATH", "")
	t.Setenv("VIRTUAL_ENV", filepath.Join(dir, "venv"))
	t.Setenv(Variable, "")
	find := func() string {
		path, err := Find()
		require.NoError(t, err)
		return path
	}
	require.Equal(t, venv, find())
	t.Setenv(Variable, old)
	require.Equal(t, old, find())
	t.Setenv(Variable, filepath.Join(dir, "release"))
	require.Equal(t, link, find(), "the first of the highest version")
	t.Setenv(Variable, dir)
	_, err := Find()
	require.ErrorContains(t, err, "$ONNXRUNTIME is "+dir+", where there is no libonnxruntime.so*: pip install onnxruntime")
}

package checkpoint

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a reader accepts can be written, and reading it again gives the same.
func roundTrip(t *testing.T, f *File) {
	t.Helper()
	var b bytes.Buffer
	if err := WriteSafetensors(&b, f); err != nil {
		return // a PyTorch file may hold names that safetensors has not
	}
	g, err := ReadSafetensors(&b)
	require.NoError(t, err)
	require.Equal(t, len(f.Tensors), len(g.Tensors))
	for i, x := range f.Tensors {
		y := g.Tensors[i]
		require.Equal(t, x.Name, y.Name)
		require.Equal(t, x.DType, y.DType)
		require.True(t, bytes.Equal(x.Data, y.Data))
		require.NoError(t, y.check())
	}
}

func FuzzReadSafetensors(f *testing.F) {
	for _, c := range headers {
		f.Add(file(c.header, c.data))
	}
	var b bytes.Buffer
	require.NoError(f, WriteSafetensors(&b, sample()))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var g *File
		var err error
		// The parser's small change is proportional to the header: names and
		// tokens, each a few allocations.
		if got := allocated(func() { g, err = ReadSafetensors(bytes.NewReader(b)) }); got > int64(200*len(b)+1<<20) {
			t.Fatalf("%d bytes were read with %d bytes of memory", len(b), got)
		}
		if err != nil {
			return
		}
		total := 0
		for _, x := range g.Tensors {
			total += len(x.Data)
		}
		require.LessOrEqual(t, total, len(b))
		roundTrip(t, g)
	})
}

func FuzzReadTorch(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.pth")
	require.NoError(f, err)
	require.NotEmpty(f, paths)
	for _, p := range paths {
		b, err := os.ReadFile(p)
		require.NoError(f, err)
		f.Add(b, "")
		f.Add(b, ".")
	}
	f.Fuzz(func(t *testing.T, b []byte, subtree string) {
		// The archive's directory, the pickle's values and the tensors: the
		// first two cost some hundred bytes for each of theirs at most, the
		// last are bounded by copies.
		var g *File
		var err error
		if got := allocated(func() { g, err = ReadTorch(bytes.NewReader(b), int64(len(b)), &TorchOptions{subtree}) }); got > int64(400*len(b)+8<<20) {
			t.Fatalf("%d bytes were read with %d bytes of memory", len(b), got)
		}
		if err != nil {
			return
		}
		for _, x := range g.Tensors {
			require.NoError(t, x.check())
		}
		roundTrip(t, g)
	})
}

// FuzzPickle skips the containers: the bytes are the pickle, and four floats
// after it are the storage "0".
func FuzzPickle(f *testing.F) {
	for _, p := range hostile {
		f.Add([]byte(p.pickle))
	}
	f.Fuzz(func(t *testing.T, pickled []byte) {
		b := zipped(t, "archive/data.pkl", string(pickled), "archive/data/0", fourFloats)
		var g *File
		var err error
		if got := allocated(func() { g, err = ReadTorch(bytes.NewReader(b), int64(len(b)), nil) }); got > int64(400*len(b)+8<<20) {
			t.Fatalf("%d bytes were read with %d bytes of memory", len(b), got)
		}
		if err != nil {
			return
		}
		for _, x := range g.Tensors {
			require.NoError(t, x.check())
		}
	})
}

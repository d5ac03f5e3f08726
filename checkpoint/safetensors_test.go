package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var inf = math.Inf(1)

// file puts a header before n bytes of data that count up from 1.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range n {
		b = append(b, byte(i+1))
	}
	return b
}

// What the reference implementation (safetensors 0.8.0 for Python, deserialize)
// accepts and refuses, but for "a space first", which it lets pass although the
// format's text wants a {.
var headers = []struct {
	name, header string
	data         int
	want         string // of the error; "" is accepted
}{
	{"nothing", `{}`, 0, ""},
	{"one", `{"a":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]}}`, 6, ""},
	{"spaces behind", `{"a":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]}}     `, 6, ""},
	{"two, out of order", `{"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]},"a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]}}`, 5, ""},
	{"empty tensors", `{"a":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"c":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}}`, 1, ""},
	{"scalar", `{"a":{"dtype":"F16","shape":[],"data_offsets":[0,2]}}`, 2, ""},
	{"metadata", `{"__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, ""},
	{"a field more", `{"a":{"dtype":"U8","note":[{}],"shape":[1],"data_offsets":[0,1]}}`, 1, ""},
	{"unaligned", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}`, 5, ""},
	{"hole", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3, "no holes"},
	{"hole at the start", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2, "wanted a start at 0"},
	{"overlap", `{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3, "overlaps"},
	{"shared", `{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 2, "overlaps"},
	{"backwards", `{"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}}`, 2, "wanted a start at 0"},
	{"bytes behind", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2, "the file has 2"},
	{"data cut off", `{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}`, 2, "the tensors take 3 bytes"},
	{"shape too large", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4, "does not take the 4 bytes"},
	{"shape overflows", `{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0, "does not take the 0 bytes"},
	{"huge", `{"a":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}`, 0, "the tensors take 1099511627776"},
	{"negative size", `{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1, "-1 is not a size"},
	{"size is no integer", `{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, 1, "1.0 is not a size"},
	{"size is a string", `{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}`, 1, "1 is not a size"},
	{"three offsets", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}`, 1, "more than 2"},
	{"one offset", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}`, 1, "1 data_offsets"},
	{"unknown type", `{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,1]}}`, 1, `element type "F33"`},
	{"lower case type", `{"a":{"dtype":"u8","shape":[1],"data_offsets":[0,1]}}`, 1, `element type "u8"`},
	{"no type", `{"a":{"shape":[1],"data_offsets":[0,1]}}`, 1, "lacks one of"},
	{"no shape", `{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1, "lacks one of"},
	{"no offsets", `{"a":{"dtype":"U8","shape":[1]}}`, 1, "lacks one of"},
	{"name twice", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2, `"a" occurs twice`},
	{"field twice", `{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, "dtype occurs twice"},
	{"metadata is a number", `{"__metadata__":{"n":1}}`, 0, "is not a string"},
	{"an array", `[]`, 0, "does not begin with {"},
	{"a space first", ` {}`, 0, "does not begin with {"},
	{"no header", ``, 0, "does not begin with {"},
	{"cut off", `{"a":{"dtype":"U8"`, 0, "header"},
	{"two objects", `{}{}`, 0, "something follows"},
	{"not UTF-8", "{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "not UTF-8"},
}

func TestReadSafetensorsHeaders(t *testing.T) {
	for _, c := range headers {
		t.Run(c.name, func(t *testing.T) {
			b := file(c.header, c.data)
			f, err := ReadSafetensors(bytes.NewReader(b))
			// The same bytes as a stream of unknown length give the same.
			g, streamErr := ReadSafetensors(iotest.OneByteReader(bytes.NewReader(b)))
			if c.want == "" {
				require.NoError(t, err)
				require.NoError(t, streamErr)
				require.Equal(t, f, g)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.Error(t, streamErr)
			var format *FormatError
			var unsupported *UnsupportedError
			require.True(t, errors.As(err, &format) || errors.As(err, &unsupported))
		})
	}
}

// Tensors keep the order of the header, whatever that of their data.
func TestReadSafetensorsOrder(t *testing.T) {
	f, err := ReadSafetensors(bytes.NewReader(file(headers[3].header, 5)))
	require.NoError(t, err)
	require.Equal(t, []Tensor{
		{"b", U8, []int{2}, []byte{4, 5}},
		{"a", I8, []int{3}, []byte{1, 2, 3}},
	}, f.Tensors)
}

func TestReadSafetensorsPrefix(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "wanted at least 8"},
		{"seven bytes", make([]byte, 7), "7 bytes"},
		{"header beyond the file", append([]byte{200, 0, 0, 0, 0, 0, 0, 0}, "{}"...), "a header of 200 bytes"},
		{"header beyond all", append([]byte{255, 255, 255, 255, 255, 255, 255, 255}, "{}"...), "wanted at most 100000000"},
		{"header of the largest size", append([]byte{0, 0xe1, 0xf5, 5, 0, 0, 0, 0}, "{}"...), "a header of 100000000 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(c.b), iotest.HalfReader(bytes.NewReader(c.b))} {
				_, err := ReadSafetensors(r)
				require.ErrorContains(t, err, c.want)
			}
		})
	}
	broken := errors.New("the disk is broken")
	_, err := ReadSafetensors(iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
	whole := file(headers[1].header, 6)
	_, err = ReadSafetensors(io.MultiReader(bytes.NewReader(whole[:len(whole)-2]), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
}

// allocated returns the bytes that f allocates.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// A header of a few bytes that says a terabyte takes only memory for the bytes
// in the file.
func TestReadSafetensorsAllocatesWhatIsThere(t *testing.T) {
	b := file(`{"a":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}`, 100)
	for _, r := range []io.Reader{bytes.NewReader(b), struct{ io.Reader }{bytes.NewReader(b)}} {
		// Twice the piece that a stream is read in, and the parser's small change.
		require.Less(t, allocated(func() { ReadSafetensors(r) }), int64(3<<20))
	}
}

// A file is read with one allocation of its size, whatever it holds.
func TestOpenSafetensorsReadsOnce(t *testing.T) {
	const n = 4 << 20
	path := filepath.Join(t.TempDir(), "big.safetensors")
	require.NoError(t, SaveSafetensors(path, &File{Tensors: []Tensor{
		FromFloat32("a", make([]float32, n), n), FromFloat32("b", make([]float32, n), n),
	}}))
	got := allocated(func() {
		f, err := OpenSafetensors(path)
		require.NoError(t, err)
		require.Len(t, f.Tensors, 2)
	})
	require.Less(t, got, int64(2*4*n+1<<20))
}

func sample() *File {
	return &File{
		Metadata: map[string]string{"format": "pt", "made by": "<hcunet> & \"friends\""},
		Tensors: []Tensor{
			{"flags", Bool, []int{3}, []byte{1, 0, 1}},
			FromFloat32("layers.0.weight", []float32{1, -2.5, float32(inf), 0, 3, 1e-40}, 2, 3),
			FromInt64("layers.1.num_batches_tracked", []int64{1 << 40}),
			{"empty", F16, []int{0, 7}, []byte{}},
			{"half", F16, []int{1}, []byte{0x00, 0x3c}},
			{"ünïcode <&>", F64, []int{}, []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f}},
		},
	}
}

func TestWriteSafetensorsRoundTrip(t *testing.T) {
	var b bytes.Buffer
	f := sample()
	require.NoError(t, WriteSafetensors(&b, f))
	require.Zero(t, (binary.LittleEndian.Uint64(b.Bytes()) % 8), "the data begins at a multiple of 8")
	g, err := ReadSafetensors(bytes.NewReader(b.Bytes()))
	require.NoError(t, err)
	f.Tensors[2].Shape = []int{} // a nil shape is a scalar's, too
	require.Len(t, g.Digest, 64)
	f.Digest = g.Digest
	require.Equal(t, f, g)

	// Every element is aligned: the places are multiples of the sizes.
	header := b.Bytes()[8 : 8+binary.LittleEndian.Uint64(b.Bytes())]
	parsed, places, err := parseHeader(header)
	require.NoError(t, err)
	for i, p := range places {
		assert.Zero(t, p.lo%int64(parsed.Tensors[i].DType.Size()), parsed.Tensors[i].Name)
	}

	var again bytes.Buffer
	require.NoError(t, WriteSafetensors(&again, g))
	require.Equal(t, b.Bytes(), again.Bytes(), "the same file, the same bytes")
}

func TestWriteSafetensorsRefuses(t *testing.T) {
	one := FromFloat32("a", []float32{1}, 1)
	for _, c := range []struct {
		name string
		f    File
		want string
	}{
		{"a name twice", File{Tensors: []Tensor{one, one}}, "the name is taken"},
		{"the metadata's name", File{Tensors: []Tensor{FromFloat32("__metadata__", nil, 0)}}, "the name is taken"},
		{"a name not UTF-8", File{Tensors: []Tensor{FromFloat32("\xff", nil, 0)}}, "not UTF-8"},
		{"the digest's name", File{Metadata: map[string]string{"hcunet_sha256": ""}}, "the name of the digest"},
		{"metadata not UTF-8", File{Metadata: map[string]string{"a": "\xff"}}, "not UTF-8"},
		{"a shape that does not fit", File{Tensors: []Tensor{FromFloat32("a", []float32{1}, 2)}}, "needs 8 bytes, but it has 4"},
		{"a negative shape", File{Tensors: []Tensor{FromFloat32("a", nil, -1)}}, "has shape [-1]"},
		{"an unknown type", File{Tensors: []Tensor{{"a", "F7", []int{0}, nil}}}, "unknown element type"},
		{"too many dimensions", File{Tensors: []Tensor{FromFloat32("a", nil, make([]int, 65)...)}}, "65 dimensions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			require.ErrorContains(t, WriteSafetensors(&b, &c.f), c.want)
			require.Zero(t, b.Len(), "nothing is written")
			path := filepath.Join(t.TempDir(), "x.safetensors")
			require.Error(t, SaveSafetensors(path, &c.f))
			require.NoFileExists(t, path)
		})
	}
}

// A full disk gives an error, at whatever byte it is full.
func TestWriteSafetensorsFullDisk(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, WriteSafetensors(&b, sample()))
	for n := range b.Len() {
		require.ErrorIs(t, WriteSafetensors(&limitedWriter{n}, sample()), errFull)
	}
	require.NoError(t, WriteSafetensors(&limitedWriter{b.Len()}, sample()))
}

var errFull = errors.New("no space left")

type limitedWriter struct{ left int }

func (w *limitedWriter) Write(b []byte) (int, error) {
	if len(b) > w.left {
		return w.left, errFull
	}
	w.left -= len(b)
	return len(b), nil
}

func TestSizes(t *testing.T) {
	for d, size := range map[DType]int{
		F64: 8, F32: 4, F16: 2, BF16: 2, F8E4M3: 1, F8E5M2: 1, I64: 8, I32: 4, I16: 2, I8: 1,
		U64: 8, U32: 4, U16: 2, U8: 1, Bool: 1, C64: 8, "F4": 0, "": 0,
	} {
		assert.Equal(t, size, d.Size(), d)
	}
}

// The 65,536 halves against the definition of IEEE 754, 3.4: sign, exponent with
// bias 15, fraction of 10 bits.
func TestHalfToFloat32(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		exponent, fraction := int(h>>10&31), float64(h&1023)
		var want float64
		switch {
		case exponent == 31 && fraction == 0:
			want = inf
		case exponent == 31:
			want = math.NaN()
		case exponent == 0:
			want = math.Ldexp(fraction, -24)
		default:
			want = math.Ldexp(1024+fraction, exponent-25)
		}
		if h>>15 == 1 {
			want = -want
		}
		got := float64(halfToFloat32(h))
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) || math.Signbit(got) != (h>>15 == 1) {
			t.Fatalf("%04x is %v, want %v", h, got, want)
		}
	}
}

func TestConversions(t *testing.T) {
	for _, c := range []struct {
		dtype DType
		data  []byte
		want  []float64
	}{
		{F64, []byte{0, 0, 0, 0, 0, 0, 0xf8, 0xbf}, []float64{-1.5}},
		{F32, []byte{0, 0, 0xc0, 0xbf}, []float64{-1.5}},
		{F16, []byte{0x00, 0xbe, 0x01, 0x00}, []float64{-1.5, 0x1p-24}},
		{BF16, []byte{0xc0, 0xbf}, []float64{-1.5}},
		{I64, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, []float64{-2}},
		{I32, []byte{0xfe, 0xff, 0xff, 0xff}, []float64{-2}},
		{I16, []byte{0xfe, 0xff, 1, 0}, []float64{-2, 1}},
		{I8, []byte{0xfe, 1}, []float64{-2, 1}},
		{U64, []byte{0, 0, 0, 0, 1, 0, 0, 0}, []float64{1 << 32}},
		{U32, []byte{0xfe, 0xff, 0xff, 0xff}, []float64{1<<32 - 2}},
		{U16, []byte{0xfe, 0xff}, []float64{1<<16 - 2}},
		{U8, []byte{0xfe, 1}, []float64{254, 1}},
		{Bool, []byte{0, 1}, []float64{0, 1}},
	} {
		t.Run(string(c.dtype), func(t *testing.T) {
			x := Tensor{"x", c.dtype, []int{len(c.want)}, c.data}
			got, err := x.Float64s()
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			narrow, err := x.Float32s()
			require.NoError(t, err)
			for i, v := range narrow {
				require.Equal(t, float32(c.want[i]), v)
			}
			require.Equal(t, len(c.want), x.Len())
		})
	}
	for _, x := range []Tensor{
		{"complex", C64, []int{1}, make([]byte, 8)},
		{"eight bits", F8E4M3, []int{1}, make([]byte, 1)},
		{"short", F32, []int{2}, make([]byte, 4)},
	} {
		_, err := x.Float64s()
		require.ErrorContains(t, err, x.Name)
		_, err = x.Float32s()
		require.ErrorContains(t, err, x.Name)
	}
}

func ExampleWriteSafetensors() {
	f := &File{
		Tensors:  []Tensor{FromFloat32("head.bias", []float32{0.5, -1}, 2)},
		Metadata: map[string]string{"format": "pt"},
	}
	var b bytes.Buffer
	if err := WriteSafetensors(&b, f); err != nil {
		fmt.Println(err)
		return
	}
	g, err := ReadSafetensors(&b)
	if err != nil {
		fmt.Println(err)
		return
	}
	x, _ := g.Lookup("head.bias")
	v, _ := x.Float32s()
	fmt.Println(x.DType, x.Shape, v)
	// Output: F32 [2] [0.5 -1]
}

// BenchmarkOpenSafetensors reads 64 MiB in 16 tensors.
func BenchmarkOpenSafetensors(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x.safetensors")
	f := &File{}
	for i := range 16 {
		f.Tensors = append(f.Tensors, FromFloat32(fmt.Sprint("w", i), make([]float32, 1<<20), 1<<20))
	}
	require.NoError(b, SaveSafetensors(path, f))
	b.SetBytes(64 << 20)
	for b.Loop() {
		if _, err := OpenSafetensors(path); err != nil {
			b.Fatal(err)
		}
	}
}

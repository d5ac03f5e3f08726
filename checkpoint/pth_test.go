package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ramp is testdata/make.py's: n elements from b on, a quarter apart.
func ramp(b float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = b + float64(i)/4
	}
	return out
}

// pick takes elements of ramp(1, 24), the tensor "base" of 4 rows and 6 columns.
func pick(rows, columns []int) []float64 {
	var out []float64
	for _, r := range rows {
		for _, c := range columns {
			out = append(out, 1+float64(6*r+c)/4)
		}
	}
	return out
}

// files runs a test for each of the PyTorch files of that kind in testdata: two
// versions, two formats.
func files(t *testing.T, kind string, test func(t *testing.T, path string)) {
	paths, err := filepath.Glob("testdata/t*_" + kind + "_*.pth")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, p := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(p), ".pth"), func(t *testing.T) { test(t, p) })
	}
}

func names(f *File) []string {
	var out []string
	for _, x := range f.Tensors {
		out = append(out, x.Name)
	}
	return out
}

// want fails unless f holds the tensor with that shape and those values.
func want(t *testing.T, f *File, name string, shape []int, values []float64) {
	t.Helper()
	x, ok := f.Lookup(name)
	require.True(t, ok, "%s is missing", name)
	require.Equal(t, shape, x.Shape, name)
	got, err := x.Float64s()
	require.NoError(t, err)
	require.Equal(t, values, got, name)
}

func TestTorchViews(t *testing.T) {
	files(t, "views", func(t *testing.T, path string) {
		f, err := Open(path)
		require.NoError(t, err)
		require.Equal(t, []string{"base", "transposed", "row", "columns", "block", "repeated", "tied", "flat", "scalar", "empty", "channels_last"}, names(f))
		want(t, f, "base", []int{4, 6}, ramp(1, 24))
		var transposed []float64
		for c := range 6 {
			transposed = append(transposed, pick([]int{0, 1, 2, 3}, []int{c})...)
		}
		want(t, f, "transposed", []int{6, 4}, transposed)
		want(t, f, "row", []int{6}, pick([]int{2}, []int{0, 1, 2, 3, 4, 5}))
		want(t, f, "columns", []int{2, 3}, pick([]int{1, 2}, []int{0, 2, 4}))
		want(t, f, "block", []int{3, 3}, pick([]int{1, 2, 3}, []int{2, 3, 4}))
		want(t, f, "repeated", []int{2, 3}, []float64{9, 9, 9, 9.25, 9.25, 9.25})
		want(t, f, "tied", []int{4, 6}, ramp(1, 24))
		want(t, f, "flat", []int{24}, ramp(1, 24))
		want(t, f, "scalar", []int{}, []float64{2.5})
		want(t, f, "empty", []int{0, 3}, []float64{})
		want(t, f, "channels_last", []int{1, 2, 2, 3}, ramp(0, 12))
	})
}

func TestTorchTypes(t *testing.T) {
	files(t, "types", func(t *testing.T, path string) {
		f, err := Open(path)
		require.NoError(t, err)
		for _, c := range []struct {
			name   string
			dtype  DType
			values []float64
		}{
			{"f64", F64, []float64{-1, -0.75, -0.5}},
			{"f32", F32, []float64{-1, -0.75, -0.5}},
			{"f16", F16, []float64{1.5, -2, 0x1p-24, 65504, inf, 0}},
			{"bf16", BF16, []float64{1.5, -2, 3}},
			{"i64", I64, []float64{-1, 1 << 40, 7}},
			{"i32", I32, []float64{-1, 1 << 30, 7}},
			{"i16", I16, []float64{-1, 300, 7}},
			{"i8", I8, []float64{-1, 100, 7}},
			{"u8", U8, []float64{255, 100, 7}},
			{"bool", Bool, []float64{1, 0, 1}},
		} {
			want(t, f, c.name, []int{len(c.values)}, c.values)
			x, _ := f.Lookup(c.name)
			assert.Equal(t, c.dtype, x.DType)
		}
		x, _ := f.Lookup("c64")
		assert.Equal(t, C64, x.DType)
		assert.Equal(t, []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}, x.Data, "1 and 2")
		if strings.Contains(path, "t2_") {
			want(t, f, "u16", []int{2}, []float64{65535, 1})
			want(t, f, "u32", []int{2}, []float64{1<<32 - 1, 1})
			x, _ := f.Lookup("f8_e4m3")
			assert.Equal(t, F8E4M3, x.DType)
			assert.Equal(t, []byte{0x38, 0x40}, x.Data, "1 and 2")
		}
	})
}

func TestTorchFastai(t *testing.T) {
	model := []string{"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
	files(t, "fastai", func(t *testing.T, path string) {
		f, err := Open(path)
		require.NoError(t, err)
		require.Equal(t, model, names(f))
		want(t, f, "0.weight", []int{3, 2, 3, 3}, ramp(0, 54))
		want(t, f, "1.weight", []int{3}, ramp(1, 3))
		want(t, f, "1.bias", []int{3}, ramp(2, 3))
		want(t, f, "1.num_batches_tracked", []int{}, []float64{1})

		all, err := OpenTorch(path, &TorchOptions{Subtree: "."})
		require.NoError(t, err)
		want(t, all, "model.1.bias", []int{3}, ramp(2, 3))
		x, ok := all.Lookup("opt.state.0.exp_avg")
		require.True(t, ok)
		require.Equal(t, []int{3, 2, 3, 3}, x.Shape)

		opt, err := OpenTorch(path, &TorchOptions{Subtree: "opt.state"})
		require.NoError(t, err)
		y, ok := opt.Lookup("0.exp_avg")
		require.True(t, ok)
		require.Equal(t, x.Data, y.Data)

		_, err = OpenTorch(path, &TorchOptions{Subtree: "modle"})
		require.ErrorContains(t, err, `there is no "modle"; the file holds a dict with the keys "model", "opt"`)
	})
}

// Values other than tensors are ignored; the call of print is not made.
func TestTorchCompany(t *testing.T) {
	files(t, "company", func(t *testing.T, path string) {
		f, err := Open(path)
		require.NoError(t, err)
		require.Equal(t, []string{"rng", "nested.weights.0", "nested.weights.1.0", "nested.7", "parameter"}, names(f))
		want(t, f, "nested.weights.0", []int{2, 2}, ramp(3, 4))
		want(t, f, "nested.weights.1.0", []int{1}, ramp(4, 1))
		want(t, f, "nested.7", []int{1}, ramp(6, 1))
		want(t, f, "parameter", []int{2}, ramp(5, 2))
	})
}

func TestTorchProtocols(t *testing.T) {
	for _, protocol := range []string{"2", "3", "4", "5"} {
		files(t, "protocol"+protocol, func(t *testing.T, path string) {
			f, err := Open(path)
			require.NoError(t, err)
			require.Equal(t, []string{"weight", "carrying", "bias"}, names(f))
			want(t, f, "weight", []int{2, 2}, ramp(1, 4))
			want(t, f, "carrying", []int{3}, ramp(2, 3))
			want(t, f, "bias", []int{1}, ramp(4, 1))
		})
	}
}

func TestTorchPython2(t *testing.T) {
	files(t, "python2", func(t *testing.T, path string) {
		f, err := Open(path)
		require.NoError(t, err)
		require.Equal(t, []string{"conv1.weight", "bn1.running_mean"}, names(f))
		want(t, f, "conv1.weight", []int{2, 3}, ramp(1, 6))
		want(t, f, "bn1.running_mean", []int{3}, ramp(8, 3))
	})
}

func TestTorchUnsupported(t *testing.T) {
	for kind, text := range map[string]string{
		"module":     "state_dict()",
		"script":     "TorchScript",
		"sparse":     `"w" is made by "torch._utils._rebuild_sparse_tensor"`,
		"complex128": `"w" is made by`,
		"quantized":  `"w" is made by`,
	} {
		files(t, kind, func(t *testing.T, path string) {
			_, err := Open(path)
			var unsupported *UnsupportedError
			require.ErrorAs(t, err, &unsupported)
			require.ErrorContains(t, err, text)
		})
	}
	// The tensor behind the quantized one is found in both formats.
	files(t, "quantized", func(t *testing.T, path string) {
		f, err := OpenTorch(path, &TorchOptions{Subtree: "x"})
		require.NoError(t, err)
		want(t, f, "", []int{2}, ramp(1, 2))
	})
}

// No byte of a file, cut off or changed, makes the reader panic, hang or take
// memory; what it says is an error of its own kind, or a reading error.
func TestTorchDamage(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.pth")
	require.NoError(t, err)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for cut := 0; cut < len(b); cut += 1 + len(b)/60 {
			f, err := ReadTorch(bytes.NewReader(b[:cut]), int64(cut), nil)
			if err == nil { // a tar archive ends in zeros that nobody needs
				whole, err := read(b)
				require.NoError(t, err)
				require.Equal(t, whole, f, "%s cut at %d", path, cut)
				continue
			}
			var format *FormatError
			var unsupported *UnsupportedError
			var kind *KindError
			require.True(t, errors.As(err, &format) || errors.As(err, &unsupported) || errors.As(err, &kind), "%s cut at %d: %v", path, cut, err)
		}
		for at := 0; at < len(b); at += 1 + len(b)/200 {
			c := bytes.Clone(b)
			c[at] ^= 0x55
			ReadTorch(bytes.NewReader(c), int64(len(c)), nil)
		}
	}
}

// zipped packs entries as torch.save does: stored.
func zipped(t testing.TB, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		f, err := w.CreateHeader(&zip.FileHeader{Name: entries[i], Method: zip.Store})
		require.NoError(t, err)
		_, err = f.Write([]byte(entries[i+1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// Pieces of pickles, as opcodes.
const (
	proto    = "\x80\x02"
	storage4 = "(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ" // 4 floats, key 0
	rebuild  = "ctorch._utils\n_rebuild_tensor_v2\n"
)

func key(s string) string { return fmt.Sprintf("X%c\x00\x00\x00%s", len(s), s) }

// fourFloats is the storage that the hostile pickles have: 1, 2, 3, 4.
const fourFloats = "\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\x40\x00\x00\x80\x40"

// hostile holds pickles and the texts that their errors must contain; "" if a
// tensor is returned.
var hostile = func() []struct{ name, pickle, want string } {
	long := func(n int64) string { // LONG1 of 8 bytes
		b := []byte{0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 0}
		for i := range 8 {
			b[2+i] = byte(n >> (8 * i))
		}
		return string(b)
	}
	whole := rebuild + "(" + storage4 + "K\x00(K\x04t(K\x01t\x89NtR"
	tensor := func(offset, size, stride string) string {
		return proto + "}" + key("w") + rebuild + "(" + storage4 + offset + "(" + size + "t(" + stride + "t\x89NtRs."
	}
	deep := func(n int) string {
		return proto + strings.Repeat("]", n) + strings.Repeat("a", n-1) + "."
	}
	laughs := proto + "]q\x00" // a list, then lists of ten times the one before
	for i := 1; i < 60; i++ {
		laughs += "](" + strings.Repeat("h"+string(rune(i-1)), 10) + "eq" + string(rune(i))
	}
	return []struct{ name, pickle, want string }{
		{"whole", tensor("K\x00", "K\x04", "K\x01"), ""},
		{"behind the end", tensor("K\x01", "K\x04", "K\x01"), "does not lie in its storage"},
		{"offset behind the end", tensor(long(1<<62), "K\x01", "K\x01"), "does not lie"},
		{"offset negative", tensor(long(-1), "K\x01", "K\x01"), "at offset -1"},
		{"size negative", tensor("K\x00", long(-4), "K\x01"), "size -4"},
		{"stride negative", tensor("K\x03", "K\x04", long(-1)), "stride -1"},
		{"stride overflows", tensor("K\x00", "K\x03", long(1<<62)), "does not lie"},
		{"size overflows", tensor("K\x00", long(1<<62)+long(1<<62), "K\x00K\x00"), "its shape is"},
		{"repeated without end", tensor("K\x00", long(1<<40), "K\x00"), "many times as large"},
		{"repeated a little", tensor("K\x00", "M\xe8\x03", "K\x00"), ""},
		{"size without stride", tensor("K\x00", "K\x04", ""), "have different lengths"},
		{"missing storage", strings.Replace(tensor("K\x00", "K\x04", "K\x01"), "\x01\x00\x00\x000X", "\x01\x00\x00\x009X", 1), "archive/data/9 is missing"},
		{"a storage of nothing known", strings.Replace(tensor("K\x00", "K\x04", "K\x01"), "FloatStorage", "BloatStorage", 1), "only dense tensors"},
		{"a storage of another module", strings.Replace(tensor("K\x00", "K\x04", "K\x01"), "ctorch\nF", "cposix\nF", 1), "only dense tensors"},
		{"string longer than the file", proto + "X\xff\xff\xff\x7fabc.", "the pickle says 2147483647 bytes"},
		{"bytes longer than anything", proto + "\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc.", "the pickle says"},
		{"empty stack", proto + ".", "the stack is empty"},
		{"append to nothing", proto + "Na.", "the stack is empty"},
		{"nothing appended", proto + "](]0e.", "holds a list"},
		{"a pop that takes the mark", proto + "](0Na.", "holds a list"},
		{"no mark", proto + "Nt.", "there is no mark"},
		{"pop below the mark", proto + "N(\x85.", "fewer than 1"},
		{"memo", proto + "h\x07.", "no entry 7"},
		{"call without tuple", proto + "cos\nsystem\nNR.", "not a tuple"},
		{"os.system", proto + "cos\nsystem\nX\x02\x00\x00\x00id\x85R.", `an object of "os.system"`},
		{"eval twice", proto + "cbuiltins\neval\n)R)R.", `"a computed callable"`},
		{"python 0 opcode", "\x80\x02I1\n.", "opcode 0x49"},
		{"protocol 9", "\x80\x09N.", "protocol 9"},
		{"a list that holds itself", proto + "]q\x00h\x00a.", "too deeply or have too many values"},
		{"deep", deep(100000), "too deeply or have too many values"},
		{"a thousand million laughs", laughs + ".", "too deeply or have too many values"},
		{"a set of dicts from a list", proto + "](" + strings.Repeat("N", 2000) + "eq\x00" + strings.Repeat("ccollections\nOrderedDict\nh\x00\x85R", 2000) + ".", "not pairs"},
		{"dicts of one list", proto + "](" + strings.Repeat("NN\x86", 2000) + "eq\x00" + strings.Repeat("ccollections\nOrderedDict\nh\x00\x85R", 2000) + ".", "too many dicts"},
		{"a name of a megabyte", proto + "}X\x00\x00\x10\x00" + strings.Repeat("a", 1<<20) + "Ns.", "longer than"},
		{"two tensors of one name", proto + "}(" + key("a.b") + whole + key("a") + "}" + key("b") + whole + "su.", `two tensors are named "a.b"`},
	}
}()

func TestTorchHostile(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			b := zipped(t, "archive/data.pkl", c.pickle, "archive/data/0", fourFloats)
			f, err := ReadTorch(bytes.NewReader(b), int64(len(b)), nil)
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				return
			}
			require.NoError(t, err)
			require.Len(t, f.Tensors, 1)
		})
	}
}

// legacy joins what the old format has: pickles of the magic number, the version
// and the system, the object, the storages' keys, and the storages.
func legacy(object, keys string, storages ...string) []byte {
	return []byte(proto + "\x8a\x0a" + magicNumber + "." + proto + "M\xe9\x03." + proto + "}." + object + keys + strings.Join(storages, ""))
}

func read(b []byte) (*File, error) { return ReadTorch(bytes.NewReader(b), int64(len(b)), nil) }

// A storage that is a view of another: PyTorch 0.2 to 0.4 wrote them so, with
// the other's key, the offset in elements and their number behind the size.
func TestTorchLegacyStorageView(t *testing.T) {
	view := strings.Replace(storage4, "K\x04tQ", "K\x02X\x01\x00\x00\x007K\x01K\x02\x87tQ", 1)
	b := legacy(proto+"}"+key("w")+rebuild+"("+view+"K\x01(K\x01t(K\x01t\x89NtRs.", proto+"]"+key("0")+"a.", "\x04\x00\x00\x00\x00\x00\x00\x00"+fourFloats)
	f, err := read(b)
	require.NoError(t, err)
	want(t, f, "w", []int{1}, []float64{3})
}

func TestTorchLegacyBroken(t *testing.T) {
	object := proto + "}" + key("w") + rebuild + "(" + storage4 + "K\x00(K\x04t(K\x01t\x89NtRs."
	keys := proto + "]" + key("0") + "a."
	count := "\x04\x00\x00\x00\x00\x00\x00\x00"
	f, err := read(legacy(object, keys, count, fourFloats))
	require.NoError(t, err)
	want(t, f, "w", []int{4}, []float64{1, 2, 3, 4})
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"cut off storage", legacy(object, keys, count, fourFloats[1:]), "4 elements of 4 bytes, 15 bytes are left"},
		{"storage of negative length", legacy(object, keys, "\xff\xff\xff\xff\xff\xff\xff\xff", fourFloats), "-1 elements"},
		{"storage of endless length", legacy(object, keys, "\xff\xff\xff\xff\xff\xff\xff\x7f", fourFloats), "9223372036854775807 elements"},
		{"no storages", legacy(object, keys), "storage \"0\" is missing"},
		{"storage smaller than its tensor", legacy(object, keys, "\x03\x00\x00\x00\x00\x00\x00\x00", fourFloats), "does not lie in its storage of 3"},
		{"no list of storages", legacy(object, proto+"N."), "the list of storages is missing"},
		{"a storage that is not listed", legacy(object, proto+"]."), "storage \"0\" is missing"},
		{"a storage listed twice", legacy(object, proto+"]"+key("0")+"a"+key("0")+"a.", count, fourFloats), "listed twice"},
		{"a storage nobody uses", legacy(object, proto+"]"+key("1")+"a."), "belongs to no tensor"},
		{"another version", bytes.Replace(legacy(object, keys), []byte("M\xe9\x03"), []byte("M\xea\x03"), 1), "protocol version 1002"},
		{"another number", bytes.Replace(legacy(object, keys), []byte(magicNumber), []byte("0123456789"), 1), "not one of torch.save"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(c.b)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestTorchZipBroken(t *testing.T) {
	object := proto + "}" + key("w") + rebuild + "(" + storage4 + "K\x00(K\x04t(K\x01t\x89NtRs."
	good := zipped(t, "x/data.pkl", object, "x/byteorder", "little", "x/data/0", fourFloats)
	f, err := read(good)
	require.NoError(t, err)
	want(t, f, "w", []int{4}, []float64{1, 2, 3, 4})

	var deflated bytes.Buffer
	w := zip.NewWriter(&deflated)
	e, err := w.Create("x/data.pkl")
	require.NoError(t, err)
	e.Write([]byte(object))
	require.NoError(t, w.Close())

	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"a bit of a weight flipped", bytes.Replace(good, []byte(fourFloats), []byte("\x01"+fourFloats[1:]), 1), "checksum"},
		{"big endian", zipped(t, "x/data.pkl", object, "x/byteorder", "big", "x/data/0", fourFloats), `byte order "big"`},
		{"some other archive", zipped(t, "readme.txt", "hello"), "without torch.save's data.pkl"},
		{"data.pkl too deep", zipped(t, "a/b/data.pkl", object), "without torch.save's data.pkl"},
		{"TorchScript", zipped(t, "x/data.pkl", object, "x/constants.pkl", "", "x/data/0", fourFloats), "TorchScript"},
		{"compressed", deflated.Bytes(), "is compressed"},
		{"cut off", good[:len(good)-3], "zip"},
		{"a short storage", zipped(t, "x/data.pkl", object, "x/data/0", fourFloats[:15]), "storage of 3 elements"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(c.b)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// Many names for the bytes of one entry: a bomb of zip's directory.
func TestTorchZipOverlap(t *testing.T) {
	const n = 40
	var object strings.Builder
	object.WriteString(proto + "}(")
	big := strings.Repeat("\x00", 4000)
	entries := []string{}
	for i := range n {
		name := string(rune('A' + i))
		object.WriteString(key("w"+name) + rebuild + "(" + strings.Replace(storage4, "\x01\x00\x00\x000", "\x01\x00\x00\x00"+name, 1) + "K\x00(K\x04t(K\x01t\x89NtR")
		entries = append(entries, "x/data/"+name, big)
	}
	object.WriteString("u.")
	b := zipped(t, append([]string{"x/data.pkl", object.String()}, entries...)...)
	f, err := read(b)
	require.NoError(t, err)
	require.Len(t, f.Tensors, n)

	// The same directory, every entry at the place of the first: its records
	// hold the offset 42 bytes behind their signature.
	first := bytes.Index(b, []byte("x/data/A")) - 30
	end := bytes.Index(b, []byte("PK\x01\x02"))
	short := append(bytes.Clone(b[:first+30+8+4000+16]), b[end:]...)
	moved := len(b) - len(short)
	directory := end - moved
	for at := directory; ; {
		i := bytes.Index(short[at:], []byte("PK\x01\x02"))
		if i < 0 {
			break
		}
		at += i
		if bytes.HasPrefix(short[at+46:], []byte("x/data/")) {
			binary.LittleEndian.PutUint32(short[at+42:], uint32(first))
		}
		at += 46
	}
	tail := bytes.LastIndex(short, []byte("PK\x05\x06"))
	binary.LittleEndian.PutUint32(short[tail+16:], uint32(directory))
	_, err = read(short)
	require.ErrorContains(t, err, "the entries overlap")
}

// BenchmarkReadTorch reads one tensor of 64 MiB: the zip format pays for its
// checksum.
func BenchmarkReadTorch(b *testing.B) {
	const n = 64 << 20
	number := func(v int) string { return "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(v))) }
	object := proto + "}" + key("w") + rebuild + "(" + storage4 + "K\x00(" + number(n/4) + "t(K\x01t\x89NtRs."
	floats := strings.Repeat(fourFloats, n/16)
	for name, file := range map[string][]byte{
		"zip":    zipped(b, "x/data.pkl", object, "x/data/0", floats),
		"legacy": legacy(object, proto+"]"+key("0")+"a.", string(binary.LittleEndian.AppendUint64(nil, n/4)), floats),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := read(file); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

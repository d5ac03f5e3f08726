package checkpoint

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testdata/make_tar.py states the values, and has found them with torch.load.
func TestTorchTar(t *testing.T) {
	files(t, "state", func(t *testing.T, path string) {
		f, err := Open(path)
		require.NoError(t, err)
		require.Equal(t, []string{"conv1.weight", "bn1.weight", "bn1.running_mean", "tied", "turned", "window", "count"}, names(f))
		want(t, f, "conv1.weight", []int{4, 6}, ramp(1, 24))
		want(t, f, "bn1.weight", []int{3}, ramp(8, 3))
		want(t, f, "bn1.running_mean", []int{3}, ramp(8, 3))
		want(t, f, "tied", []int{4, 6}, ramp(1, 24))
		want(t, f, "turned", []int{2, 3}, []float64{2, 3.5, 5, 2.25, 3.75, 5.25})
		want(t, f, "window", []int{2, 2}, []float64{2.75, 3, 4.25, 4.5})
		want(t, f, "count", []int{2}, []float64{40, 41})
		require.Equal(t, I64, f.Tensors[6].DType)
	})
}

// Pieces of the tar format.
func le64(n ...int64) string {
	var b []byte
	for _, v := range n {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return string(b)
}

const (
	floatStorage = "ctorch\nFloatStorage\n"
	floatTensor  = "ctorch\nFloatTensor\n"
)

// key1 is a pickle of the key 1, its place and its type.
func key1(middle, class string) string { return proto + "K\x01" + middle + class + "\x87." }

// tarParts are the members of an archive with one tensor "w" of four floats,
// tensor 2 on storage 1.
type tarParts struct{ system, storages, tensors, pickle string }

func goodTar() tarParts {
	return tarParts{
		system:   proto + "}" + key("little_endian") + "\x88s.",
		storages: proto + "K\x01." + key1(key("cpu"), floatStorage) + le64(4) + fourFloats + proto + "].",
		tensors:  proto + "K\x01." + proto + "K\x02K\x01" + floatTensor + "\x87." + le64(1, 4, 1, 0),
		pickle:   proto + "}" + key("w") + key("2") + "Qs.",
	}
}

func (p tarParts) bytes(t testing.TB) []byte {
	return tarred(t, "sys_info", p.system, "pickle", p.pickle, "tensors", p.tensors, "storages", p.storages)
}

// tarred packs members as torch.save of 0.1 did.
func tarred(t testing.TB, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: members[i], Size: int64(len(members[i+1])), Mode: 0o644, Format: tar.FormatPAX}))
		_, err := w.Write([]byte(members[i+1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// withView ends the storages with a view of key 3, which the tensor lies on.
func withView(view string) func(*tarParts) {
	return func(p *tarParts) {
		p.storages = strings.TrimSuffix(p.storages, "].") + "]((" + view + "te."
		p.tensors = strings.Replace(p.tensors, "K\x02K\x01", "K\x02K\x03", 1)
	}
}

func number(n int64) string { return "\x8a\x08" + le64(n) }

// One tensor, and the result after one change of the file.
func TestTorchTarHostile(t *testing.T) {
	replace := func(s *string, old, new string) {
		require.Contains(t, *s, old)
		*s = strings.Replace(*s, old, new, 1)
	}
	shape := func(n ...int64) func(*tarParts) {
		return func(p *tarParts) { replace(&p.tensors, le64(1, 4, 1, 0), le64(n...)) }
	}
	for _, c := range []struct {
		name   string
		change func(*tarParts)
		want   string // in the error
		shape  []int
		values []float64
	}{
		{"nothing", func(*tarParts) {}, "", []int{4}, []float64{1, 2, 3, 4}},
		{"no system", func(p *tarParts) { p.system = proto + "N." }, "", []int{4}, []float64{1, 2, 3, 4}},
		{"two rows, transposed", shape(2, 2, 2, 1, 2, 0), "", []int{2, 2}, []float64{1, 3, 2, 4}},
		{"from the third on", shape(1, 2, 1, 2), "", []int{2}, []float64{3, 4}},
		{"repeated", shape(2, 3, 2, 0, 1, 1), "", []int{3, 2}, []float64{2, 3, 2, 3, 2, 3}},
		{"a scalar, as torch.load of 1.13 says", shape(0, 3), "", []int{}, []float64{4}},
		{"view", withView("K\x03K\x01K\x01K\x02"), "does not lie in its storage of 2 elements", nil, nil},
		{"tensor in a view", func(p *tarParts) {
			withView("K\x03K\x01K\x01K\x02")(p)
			shape(1, 2, 1, 0)(p)
		}, "", []int{2}, []float64{2, 3}},
		{"no storage, no elements", func(p *tarParts) {
			replace(&p.tensors, "K\x02K\x01", "K\x02N")
			shape(0, 0)(p)
		}, "", []int{0}, []float64{}},
		{"no storage, but elements", func(p *tarParts) { replace(&p.tensors, "K\x02K\x01", "K\x02N") }, "storage \"none\" is missing", nil, nil},
		{"the key as a number", func(p *tarParts) { replace(&p.pickle, key("2"), "K\x02") }, "", []int{4}, []float64{1, 2, 3, 4}},

		{"big endian", func(p *tarParts) { replace(&p.system, "\x88", "\x89") }, "big-endian", nil, nil},
		{"more elements than the storage", shape(1, 5, 1, 0), "does not lie in its storage of 4 elements", nil, nil},
		{"behind the storage", shape(1, 4, 1, 1), "does not lie", nil, nil},
		{"far behind the storage", shape(1, 1, 1, math.MaxInt64), "does not lie", nil, nil},
		{"before the storage", shape(1, 4, 1, -1), "offset -1", nil, nil},
		{"stride that overflows", shape(2, 2, 2, math.MaxInt64, math.MaxInt64, 0), "does not lie", nil, nil},
		{"stride below zero", shape(1, 4, -1, 3), "stride -1", nil, nil},
		{"size below zero", shape(1, -4, 1, 0), "size -4", nil, nil},
		{"size that overflows", shape(2, math.MaxInt64, math.MaxInt64, 0, 0, 0), "its shape is", nil, nil},
		{"repeated without end", shape(1, 1<<40, 0, 0), "many times as large", nil, nil},
		{"dimensions below zero", shape(-1, 4, 1, 0), "a tensor of -1 dimensions", nil, nil},
		{"dimensions without end", shape(math.MaxInt32, 4, 1, 0), "a tensor of 2147483647 dimensions", nil, nil},
		{"dimensions that are not there", shape(9, 4, 1, 0), "ends early", nil, nil},

		{"storage longer than the file", func(p *tarParts) { replace(&p.storages, le64(4), le64(1<<40)) }, "1099511627776 elements", nil, nil},
		{"storage of negative length", func(p *tarParts) { replace(&p.storages, le64(4), le64(-1)) }, "18446744073709551615 elements", nil, nil},
		{"storage that overflows in bytes", func(p *tarParts) { replace(&p.storages, le64(4), le64(1<<62)) }, "4611686018427387904 elements", nil, nil},
		{"storage shorter than it says", func(p *tarParts) { replace(&p.storages, le64(4), le64(3)) }, "opcode", nil, nil},
		{"storage of an unknown type", func(p *tarParts) { replace(&p.storages, "FloatStorage", "BloatStorage") }, "BloatStorage", nil, nil},
		{"storage of another module", func(p *tarParts) { replace(&p.storages, "ctorch", "cposix") }, "posix.FloatStorage", nil, nil},
		{"storages without end", func(p *tarParts) { replace(&p.storages, "K\x01.", number(1<<60)+".") }, "wanted a new key", nil, nil},
		{"tensors without end", func(p *tarParts) { replace(&p.tensors, "K\x01.", number(1<<60)+".") }, "ends early", nil, nil},
		{"a count below zero", func(p *tarParts) { replace(&p.tensors, "K\x01.", number(-1)+".") }, "wanted a count", nil, nil},
		{"a count that is none", func(p *tarParts) { replace(&p.tensors, "K\x01.", "N.") }, "wanted a count", nil, nil},
		{"a record that is none", func(p *tarParts) { replace(&p.tensors, floatTensor+"\x87.", floatTensor+"\x86.") }, "wanted a new key", nil, nil},
		{"a tensor on nothing", func(p *tarParts) { replace(&p.tensors, "K\x02K\x01", "K\x02K\x09") }, "a tensor on storage 9", nil, nil},
		{"a tensor on a string", func(p *tarParts) { replace(&p.tensors, "K\x02K\x01", "K\x02"+key("1")) }, "a tensor on a string", nil, nil},
		{"a tensor with a storage's key", func(p *tarParts) { replace(&p.tensors, "K\x02K\x01", "K\x01K\x01") }, "wanted a new key", nil, nil},
		{"a persistent id in a record", func(p *tarParts) { replace(&p.tensors, "K\x02K\x01", "K\x02K\x01Q") }, "where none is allowed", nil, nil},

		{"no list of views", func(p *tarParts) { replace(&p.storages, "].", "N.") }, "list of views", nil, nil},
		{"view behind the end", withView("K\x03K\x01K\x03K\x02"), "a view of 2 elements at 3", nil, nil},
		{"view before the start", withView("K\x03K\x01" + number(-1) + "K\x02"), "a view of 2 elements at -1", nil, nil},
		{"view that overflows", withView("K\x03K\x01K\x01" + number(math.MaxInt64)), "a view of 9223372036854775807 elements", nil, nil},
		{"view of nothing", withView("K\x03K\x09K\x00K\x01"), "storage 9", nil, nil},
		{"view of itself", withView("K\x03K\x03K\x00K\x01"), "storage 3", nil, nil},
		{"view with a storage's key", withView("K\x01K\x01K\x00K\x01"), "exists already", nil, nil},
		{"view with a string", withView("K\x03K\x01K\x00" + key("x")), "a string", nil, nil},
		{"view of three", withView("K\x03K\x01K\x00"), "wanted a view", nil, nil},

		{"a tensor that is not there", func(p *tarParts) { replace(&p.pickle, key("2"), key("7")) }, "no tensor or storage 7", nil, nil},
		{"an id that is no number", func(p *tarParts) { replace(&p.pickle, key("2"), key("x")) }, `a persistent id "x"`, nil, nil},
		{"a storage as it is", func(p *tarParts) { replace(&p.pickle, key("2"), key("1")) }, "there are no tensors", nil, nil},
		{"a module with its source", func(p *tarParts) { p.pickle = proto + "cfoo\nNet\nNN\x87Q)\x81." }, `an object of "foo.Net"`, nil, nil},
		{"a module's id without class", func(p *tarParts) { p.pickle = proto + "NNN\x87Q)\x81." }, "not a class", nil, nil},
		{"os.system", func(p *tarParts) { p.pickle = proto + "cos\nsystem\n" + key("i") + "\x85R." }, `an object of "os.system"`, nil, nil},
		{"a variable without a state", func(p *tarParts) { replace(&p.pickle, key("2")+"Q", "ctorch.autograd.variable\nVariable\n)\x81") }, "whose state is not a tensor", nil, nil},
		{"a variable with itself", func(p *tarParts) {
			replace(&p.pickle, key("2")+"Q", "ctorch.autograd.variable\nVariable\n)\x81q\x00(h\x00NNNNtb")
		}, "whose state is not a tensor", nil, nil},
		{"a tensor by its state", func(p *tarParts) {
			replace(&p.pickle, key("2")+"Q", "ctorch\nFloatTensor\n)\x81("+key("1")+"QK\x01K\x02\x85K\x01\x85tb")
		}, "", []int{2}, []float64{2, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := goodTar()
			c.change(&p)
			b := p.bytes(t)
			var f *File
			var err error
			// No memory is allocated for the counts and sizes above, only for
			// the buffers of the reader.
			require.Less(t, allocated(func() { f, err = read(b) }), int64(1<<20))
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{"w"}, names(f))
			want(t, f, "w", c.shape, c.values)
		})
	}
}

func TestTorchTarArchive(t *testing.T) {
	p := goodTar()
	good := p.bytes(t)
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"some other archive", tarred(t, "readme.txt", "hello", "a", "", "b", "", "c", "", "d", ""), `a tar archive without torch.save's storages; it holds "readme.txt", "a", "b", "c", ...`},
		{"a member missing", tarred(t, "pickle", p.pickle, "storages", p.storages), "torch.save's tensors"},
		{"a member twice", tarred(t, "pickle", p.pickle, "pickle", p.pickle), "occurs twice"},
		{"too many members", tarred(t, append(strings.Split(strings.Repeat("x,,", maxMembers)[:3*maxMembers-1], ","), "pickle", p.pickle)...), "without torch.save's storages"},
		{"cut off", good[:1600], "tar archive"},
		{"cut off in the storages", good[:len(good)-1024-512], "tar archive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(c.b)
			require.ErrorContains(t, err, c.want)
		})
	}

	// A header with a size larger than the file.
	b := bytes.Clone(good)
	at := bytes.LastIndex(b, []byte("storages\x00"))
	copy(b[at+124:], "77777777777\x00") // size, octal
	sum := 8 * int(' ')                 // the checksum counts its own eight digits as spaces
	for i, c := range b[at : at+512] {
		if i < 148 || i >= 156 {
			sum += int(c)
		}
	}
	copy(b[at+148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	_, err := read(b)
	require.ErrorContains(t, err, "bytes that are left")
}

// Many views of one storage share its bytes: memory does not grow with them.
func TestTorchTarViewsShare(t *testing.T) {
	const n, size = 200, 1 << 18
	var views, tensors, object strings.Builder
	for i := range int64(n) {
		views.WriteString("(" + number(1000+i) + "K\x01K\x00" + number(size/4) + "t")
		tensors.WriteString(proto + number(2000+i) + number(1000+i) + floatTensor + "\x87." + le64(1, size/4, 1, 0))
		object.WriteString(key(string(rune('A'+i/20))+string(rune('A'+i%20))) + number(2000+i) + "Q")
	}
	p := goodTar()
	p.storages = proto + "K\x01." + key1(key("cpu"), floatStorage) + le64(size/4) + strings.Repeat("\x00", size) + proto + "](" + views.String() + "e."
	p.tensors = proto + number(n) + "." + tensors.String()
	p.pickle = proto + "}(" + object.String() + "u."
	b := p.bytes(t)
	var f *File
	var err error
	require.Less(t, allocated(func() { f, err = read(b) }), int64(4*size))
	require.NoError(t, err)
	require.Len(t, f.Tensors, n)
	require.Len(t, f.Tensors[n-1].Data, size)
}

// FuzzTar skips the tar archive: the bytes are its members.
func FuzzTar(f *testing.F) {
	p := goodTar()
	f.Add([]byte(p.system), []byte(p.storages), []byte(p.tensors), []byte(p.pickle))
	withView("K\x03K\x01K\x01K\x02")(&p)
	f.Add([]byte(p.system), []byte(p.storages), []byte(p.tensors), []byte(p.pickle))
	p = goodTar()
	f.Add([]byte(p.system), []byte(p.storages), []byte(strings.Replace(p.tensors, le64(1, 4, 1, 0), le64(2, 3, 2, 0, 1, 1), 1)),
		[]byte(strings.Replace(p.pickle, key("2")+"Q", "ctorch.nn.parameter\nParameter\n)\x81("+key("2")+"QNN\x88\x89tb", 1)))
	f.Fuzz(func(t *testing.T, system, storages, tensors, pickle []byte) {
		b := tarParts{string(system), string(storages), string(tensors), string(pickle)}.bytes(t)
		var g *File
		var err error
		if got := allocated(func() { g, err = read(b) }); got > int64(400*len(b)+8<<20) {
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

package jpeg

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/data/internal/jpegtest"
)

// The hashes are of what libjpeg-turbo 2.1.5 decodes, and for JPEG-LS ("ls")
// CharLS 2.4.1, by testdata/make.py.
var reference = []struct {
	name       string
	components int
	sha256     string
}{
	{"grey", 1, "649fce038f49aa7a401be9f9f29476c73744b96a5ed0ae8043ada89dc9dfa1d8"},
	{"grey_q100", 1, "5d34a07fc78e26424d7af5667137d63342a6c68dffb9f26dd60234658b62d49e"},
	{"grey_q3", 1, "6890fbe9c92aa8501f3797fd02eba789c4f0e9d89e284e5475b3d9aef5320b8d"},
	{"grey_restart", 1, "5c877b6456f83d2f3563af009b0f3e73c1c0e006e790258acbbf851301bd8435"},
	{"grey_progressive", 1, "70ee258fd0276454e45c0675c61f9defdccab350d14a192de137ee9cb6f46d9c"},
	{"grey_progressive_restart", 1, "649fce038f49aa7a401be9f9f29476c73744b96a5ed0ae8043ada89dc9dfa1d8"},
	{"colour_444", 3, "b864be8722cedcccc7552a9a260ef759bdebf95cec7944db3d6790a2b649907b"},
	{"colour_422", 3, "3781b67881484d01c257f38454f20e3df6643893bdbfd3cdb141b562999bf820"},
	{"colour_420", 3, "fc94f8406486f57137dae6eb2f7da37f002b34676136077004c9c8ae0791c0e7"},
	{"colour_420_progressive", 3, "f8d29887a3c707026122e6bfe509d5c6cbd4e0b789f046d3707ba828f5b36e81"},
	{"ls_grey", 1, "5e121945f3d834385f3c1ceb9a0fee19a3dd849086357da5e57b36fb27d2712c"},
	{"ls_grey_near3", 1, "b8716b1c61eb57c00fcd1249459b38945f6b25bf0746f2d27726186e8f3f720c"},
	{"ls_flat", 1, "22867f979d4fac20889b0e0ce88755debb14059abd5ccc80d8d975aebe82f017"},
	{"ls_12bits", 1, "15cf3b31d996cf9c3b6ee7b40ff8fcc580539eea0f03e07d839d355babc1cd57"},
	{"ls_planes", 3, "369716692a9088561293712577e976e0307cf0300bf3494d54fa48cd57c74265"},
	{"ls_line", 3, "369716692a9088561293712577e976e0307cf0300bf3494d54fa48cd57c74265"},
	{"ls_sample_near2", 3, "4be3e64e858717b13daaa6c1c63e73f2eb48326537237a8ca9af6280ec0ad63c"},
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".jpg"))
	require.NoError(t, err)
	return b
}

func TestSameAsReference(t *testing.T) {
	for _, c := range reference {
		t.Run(c.name, func(t *testing.T) {
			img, err := Decode(read(t, c.name), Limits{})
			require.NoError(t, err)
			assert.Equal(t, [3]int{37, 29, c.components}, [3]int{img.Width, img.Height, img.Components})
			pix := img.Pix8
			for _, v := range img.Pix16 {
				pix = append(pix, byte(v), byte(v>>8))
			}
			require.Len(t, pix, 37*29*c.components*((img.Precision+7)/8))
			sum := sha256.Sum256(pix)
			assert.Equal(t, c.sha256, hex.EncodeToString(sum[:]))
		})
	}
}

// A block of 8 bits goes through the packed transform, two lanes to a word;
// idct does one number at a time.
func TestPackedTransformAgreesWithPlain(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for trial := range 20000 {
		var b block
		last := rng.IntN(64)
		size := int32(1) << (1 + trial%10) // up to far past white
		for k := range last + 1 {
			if k == last || rng.IntN(3) > 0 {
				b.set(zigzag[k], rng.Int32N(2*size)-size)
			}
		}
		want := idct(&b, 2)
		var got [8 * 11]uint8
		idct8(&b, last, got[:], 11)
		for i, v := range want {
			if g, w := got[i/8*11+i%8], uint8(min(max(v+128, 0), 255)); g != w {
				t.Fatalf("trial %d, last %d: sample %d is %d, want %d", trial, last, i, g, w)
			}
		}
	}
}

// The same coefficients, read as 12 bits, lie around 2048 instead of 128.
// Within 1: the transform of 12 bits keeps a bit less between its passes.
func TestTwelveBits(t *testing.T) {
	src := bytes.Clone(read(t, "grey"))
	img8, err := Decode(src, Limits{})
	require.NoError(t, err)
	at := bytes.Index(src, []byte{0xFF, sof0})
	src[at+1], src[at+4] = sof1, 12
	img12, err := Decode(src, Limits{})
	require.NoError(t, err)
	require.Equal(t, 12, img12.Precision)
	for i, v := range img8.Pix8 {
		if got := int(img12.Pix16[i]) - 2048 + 128; v > 0 && v < 255 && (got < int(v)-1 || got > int(v)+1) {
			t.Fatalf("pixel %d is %d, want %d", i, got, v)
		}
	}
}

func TestLosslessRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const w, h = 7, 5
	for predictor := 1; predictor <= 7; predictor++ {
		for _, precision := range []int{2, 8, 9, 12, 16} {
			for _, n := range []int{1, 3} {
				for _, pt := range []int{0, 1} {
					for _, restart := range []int{0, 2} {
						pix := make([]uint16, w*h*n)
						for i := range pix {
							pix[i] = uint16(rng.IntN(1<<precision)) >> pt << pt
						}
						img, err := Decode(jpegtest.Lossless(pix, w, h, n, precision, predictor, pt, restart), Limits{})
						require.NoError(t, err)
						got := img.Pix16
						for _, v := range img.Pix8 {
							got = append(got, uint16(v))
						}
						require.Equal(t, pix, got, "predictor %d, %d bits, %d components, transform %d, restart %d",
							predictor, precision, n, pt, restart)
					}
				}
			}
		}
	}
}

// A stream that is cut anywhere gives an error with an offset inside the
// stream.
func TestCutShort(t *testing.T) {
	streams := map[string][]byte{"lossless": jpegtest.Lossless(make([]uint16, 35), 7, 5, 1, 12, 4, 0, 2)}
	for _, c := range reference {
		streams[c.name] = read(t, c.name)
	}
	for name, src := range streams {
		for n := range src {
			_, err := Decode(src[:n], Limits{})
			var e *FormatError
			require.True(t, errors.As(err, &e), "%s cut to %d: %v", name, n, err)
			require.True(t, e.Offset >= 0 && e.Offset <= n, "%s cut to %d: %v", name, n, err)
		}
	}
}

// Where an open end is accepted, a stream cut anywhere is an error or the same
// pixels, and one that lost its end marker, or half of it, or got a byte of padding
// instead, is read.
func TestOpenEnd(t *testing.T) {
	streams := map[string][]byte{
		"lossless":          jpegtest.Lossless(make([]uint16, 35), 7, 5, 1, 12, 4, 0, 0),
		"lossless, restart": jpegtest.Lossless(make([]uint16, 35), 7, 5, 1, 12, 4, 0, 2),
	}
	for _, c := range reference {
		streams[c.name] = read(t, c.name)
	}
	for name, src := range streams {
		want, err := Decode(src, Limits{})
		require.NoError(t, err)
		require.False(t, want.Open)
		want.Open = true
		for n := range src {
			img, err := Decode(src[:n], Limits{OpenEnd: true})
			if n >= len(src)-2 {
				require.NoError(t, err, "%s cut to %d of %d", name, n, len(src))
			}
			if err == nil {
				require.Equal(t, want, img, "%s cut to %d of %d", name, n, len(src))
			}
		}
		bare := src[: len(src)-2 : len(src)-2]
		img, err := Decode(append(bare, 0), Limits{OpenEnd: true})
		require.NoError(t, err, name)
		require.Equal(t, want, img, name)
		_, err = Decode(append(bare, 0, 0, 0), Limits{OpenEnd: true})
		require.Error(t, err, name)
	}
	// A progressive stream without its last scans may have lost a refinement.
	prog := read(t, "grey_progressive")
	last := bytes.LastIndex(prog, []byte{0xFF, sos})
	_, err := Decode(prog[:bytes.LastIndex(prog[:last], []byte{0xFF, dht})], Limits{OpenEnd: true})
	require.ErrorContains(t, err, "the stream ends inside a scan")
}

// A frame header that does not say what the caller was told is an error before
// memory is taken for its samples.
func TestExpectations(t *testing.T) {
	good := Limits{Width: 37, Height: 29, Components: 1, Precision: 8}
	streams := map[string][]byte{"lossless": jpegtest.Lossless(make([]uint16, 37*29), 37, 29, 1, 8, 1, 0, 0)}
	for _, name := range []string{"grey", "grey_progressive", "ls_flat", "ls_grey_near3"} {
		streams[name] = read(t, name)
	}
	for name, src := range streams {
		_, err := Decode(src, good)
		require.NoError(t, err, name)
		for _, lim := range []Limits{
			{Width: 36, Height: 29, Components: 1, Precision: 8},
			{Width: 37, Height: 30, Components: 1, Precision: 8},
			{Width: 37, Height: 29, Components: 3, Precision: 8},
			{Width: 37, Height: 29, Components: 1, Precision: 7},
		} {
			_, err := Decode(src, lim)
			require.ErrorContains(t, err, "the frame is 37x29 with 1 components of 8 bits, want", name)
			var format *FormatError
			require.ErrorAs(t, err, &format)
		}
		for _, m := range []byte{sof0, sof2, sof3, sof55} {
			if i := bytes.Index(src, []byte{0xFF, m}); i > 0 {
				src = bytes.Clone(src)
				copy(src[i+5:], "\x2D\x41\x2D\x41") // 11585 of each
				break
			}
		}
		took := testing.AllocsPerRun(1, func() { _, err = Decode(src, good) })
		require.ErrorContains(t, err, "the frame is 11585x11585", name)
		require.Less(t, took, 50.0, name) // a few tables and the error
	}
}

// A flat image of a million samples, in 150 bytes of ones, takes less than
// three times its size.
func TestFlatMemory(t *testing.T) {
	const w, h = 1 << 10, 1 << 10
	src := patch(read(t, "ls_flat"), sof55, 1, h>>8, 0, w>>8, 0)
	src = src[:bytes.Index(src, []byte{0xFF, sos})+10]
	for ones := 0; ones < 500; ones++ { // the scan may not go on after the last row
		src = append(src, "\xFF\x7F"[ones%2])
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		img, err := Decode(append(src[:len(src):len(src)], 0xFF, eoi), Limits{})
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(3*w*h))
		if err == nil {
			require.Equal(t, make([]uint8, w*h), img.Pix8)
			return
		}
	}
	t.Fatal("no length of ones is the image")
}

// patch returns src with bytes changed at a place in the first segment of the
// marker.
func patch(src []byte, marker byte, at int, with ...byte) []byte {
	out := bytes.Clone(src)
	i := bytes.Index(out, []byte{0xFF, marker})
	copy(out[i+4+at:], with)
	return out
}

func TestErrors(t *testing.T) {
	grey, prog, colour := read(t, "grey"), read(t, "grey_progressive"), read(t, "colour_444")
	ls := read(t, "ls_grey")
	end := len(grey) - 2
	for _, c := range []struct {
		name string
		src  []byte
		want string
	}{
		{"empty", nil, "at byte 0: want the start marker"},
		{"not JPEG", []byte("DICM"), "at byte 0: want the start marker"},
		{"only start and end", []byte{0xFF, soi, 0xFF, eoi}, "no frame header"},
		{"width 0", patch(grey, sof0, 3, 0, 0), "frame of 0x29"},
		{"height 0", patch(grey, sof0, 1, 0, 0), "not supported"},
		{"precision 9", patch(grey, sof0, 0, 9), "9 bits per sample"},
		{"larger than its data", patch(grey, sof0, 1, 0x40, 0x00), "needs at least"},
		{"over the limit", patch(grey, sof0, 1, 0xFF, 0xFF, 0xFF, 0xFF), "the limit is 134217728 pixels"},
		{"two components", patch(colour, sof0, 5, 2), "bad frame header"},
		{"component twice", patch(colour, sof0, 9, 1), "component id 1 twice"},
		{"quantization by zero", patch(grey, dqt, 5, 0), "holds a zero"},
		{"table 3 undefined", patch(grey, sof0, 8, 3), "quantization table 3"},
		{"overfull tree", patch(grey, dht, 1, 5, 1, 0), "more codes of a length"},
		{"unknown component", patch(grey, sos, 1, 9), "unknown component 9"},
		{"undefined Huffman table", patch(grey, sos, 2, 0x33), "Huffman table that was not defined"},
		{"arithmetic", bytes.Replace(grey, []byte{0xFF, sof0}, []byte{0xFF, 0xC9}, 1), "process SOF9 is not supported"},
		{"hierarchical", bytes.Replace(grey, []byte{0xFF, sof0}, []byte{0xFF, 0xC5}, 1), "process SOF5 is not supported"},
		{"more data than blocks", append(append(bytes.Clone(grey[:end]), 1, 2, 3), 0xFF, eoi), "go on after MCU 19"},
		{"blocks without data", patch(grey, sof0, 1, 0, 45), "entropy data end"},
		{"interleaved alone", patch(ls, sos, 4, 1), "interleave mode 1"},
		{"error of 200", patch(ls, sos, 3, 200), "error 200"},
		{"mapping table", patch(ls, sos, 2, 1), "mapping tables"},
		{"no DC before AC", patch(prog, sos, 3, 1, 5), "first scan"},
		{"end before a component", append(bytes.Clone(colour[:bytes.Index(colour, []byte{0xFF, sos})]), 0xFF, eoi), "no scan for component 0"},
	} {
		_, err := Decode(c.src, Limits{})
		if assert.Error(t, err, c.name) {
			assert.Contains(t, err.Error(), c.want, c.name)
		}
	}
}

// A flipped bit must not cause a panic. Most give an error; the others give an
// image of the right size.
func TestFlippedBits(t *testing.T) {
	for _, c := range reference {
		src := read(t, c.name)
		for bit := 0; bit < 8*len(src); bit += 11 {
			src[bit/8] ^= 1 << (bit % 8)
			if img, err := Decode(src, Limits{Pixels: 1 << 14}); err == nil {
				require.Equal(t, img.Width*img.Height*img.Components, len(img.Pix8)+len(img.Pix16))
			}
			src[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range reference {
		f.Add(read(f, c.name))
	}
	f.Add(jpegtest.Lossless(make([]uint16, 105), 7, 5, 3, 12, 4, 0, 2))
	f.Fuzz(func(t *testing.T, src []byte) {
		open, errOpen := Decode(src, Limits{Pixels: 1 << 16, OpenEnd: true})
		img, err := Decode(src, Limits{Pixels: 1 << 16})
		if err == nil && (errOpen != nil || !reflect.DeepEqual(img, open)) || err != nil && errOpen == nil && !open.Open {
			t.Fatalf("%v, and where an open end is accepted %v", err, errOpen)
		}
		if err != nil {
			return
		}
		if n := img.Width * img.Height * img.Components; len(img.Pix8)+len(img.Pix16) != n {
			t.Fatalf("%dx%d with %d components has %d pixels", img.Width, img.Height, img.Components, len(img.Pix8)+len(img.Pix16))
		}
		grey, err := DecodeGrey(src, Limits{Pixels: 1 << 16})
		if supported := img.Precision == 8 && !img.Lossless; supported != (err == nil) {
			t.Fatalf("%+v, but as grey: %v", img, err)
		} else if supported && len(grey.Pix8) != img.Width*img.Height {
			t.Fatalf("%dx%d has %d grey pixels", img.Width, img.Height, len(grey.Pix8))
		}
	})
}

package clahe

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/internal/golden"
)

// picture repeats the formulas of testdata/cases.py.
func picture(kind string, rows, cols int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, cols, rows))
	i := uint32(0)
	for y := range rows {
		for x := range cols {
			i++
			n := i * 2654435761
			n ^= n >> 15
			n *= 2246822519
			n ^= n >> 13
			n &= 255
			var v int
			switch kind {
			case "noise":
				v = int(n)
			case "film":
				v = x*150/cols + y*70/rows + int(n)/8
				a, b := (2*x-cols)*rows, (2*y-rows)*cols
				if a*a+b*b < rows*cols*rows*cols/2 {
					v /= 3
				}
			case "spot":
				v = 77
				if y == rows/3 && x == cols/2 {
					v = 78
				}
			default:
				fmt.Sscanf(kind, "flat%d", &v)
			}
			img.Pix[y*img.Stride+x] = uint8(v)
		}
	}
	return img
}

// Outputs must be equal to the last bit, because the arithmetic is that of the
// reference.
func TestSizesAndOptions(t *testing.T) {
	raw, err := os.ReadFile("testdata/cases.json") // made by testdata/cases.py
	require.NoError(t, err)
	var file struct {
		Cases []struct {
			Kind       string
			Rows, Cols int
			Kernel     [2]int
			Clip       float64
			Bins       int
			Float64    string
			Bytes      string
			Mean       float64
			Some       []float64
		}
	}
	require.NoError(t, json.Unmarshal(raw, &file))
	require.Len(t, file.Cases, 96)
	for _, c := range file.Cases {
		name := fmt.Sprintf("%s %dx%d tiles %v clip %v bins %d", c.Kind, c.Rows, c.Cols, c.Kernel, c.Clip, c.Bins)
		img := picture(c.Kind, c.Rows, c.Cols)
		e, err := New(&Options{KernelRows: c.Kernel[0], KernelCols: c.Kernel[1], ClipLimit: c.Clip, Bins: c.Bins})
		require.NoError(t, err)
		out, err := e.Float64s(nil, img)
		require.NoError(t, err)
		for i, want := range c.Some {
			at := i * len(out) / len(c.Some)
			assert.Equal(t, want, out[at], "%s: value %d", name, at)
		}
		h := sha256.New()
		require.NoError(t, binary.Write(h, binary.LittleEndian, out))
		assert.Equal(t, c.Float64, hex.EncodeToString(h.Sum(nil)), name)

		bytes, stats, err := e.Gray(nil, img)
		require.NoError(t, err)
		sum := sha256.Sum256(bytes.Pix)
		assert.Equal(t, c.Bytes, hex.EncodeToString(sum[:]), name)
		assert.Equal(t, int64(len(out)), stats.N)
		assert.InDelta(t, c.Mean, stats.Mean(), 1e-12, name) // numpy sums floats, we whole numbers
	}
}

// The reference's tolerance is 1e-12 of the range; the values agree exactly.
func TestGolden(t *testing.T) {
	m := golden.Tensors(t, "b9_clahe/clahe.safetensors")
	for _, c := range []struct {
		in, out string
		opt     *Options
	}{
		{"xray128", "xray128.skimage0193", nil},
		{"xray256", "xray256.skimage0193", nil},
		{"xray200x300", "xray200x300.skimage0193", nil},
		{"grad128", "grad128.skimage0193", nil},
		{"noise128", "noise128.skimage0193", nil},
		{"narrow64", "narrow64.skimage0193", nil},
		{"almost_const64", "almost_const64.skimage0193", nil},
		{"xray128", "xray128.skimage0193.kernel32", &Options{KernelRows: 32, KernelCols: 32}},
		{"xray128", "xray128.skimage0193.clip0.03", &Options{ClipLimit: 0.03}},
		{"xray128", "xray128.skimage0193.nbins64", &Options{Bins: 64}},
		{"xray128", "xray128.skimage0193.clip0", &Options{ClipLimit: 1}},
	} {
		in := m[c.in+".in"]
		img := &image.Gray{Pix: in.Data, Stride: in.Shape[1], Rect: image.Rect(0, 0, in.Shape[1], in.Shape[0])}
		e, err := New(c.opt)
		require.NoError(t, err)
		got, err := e.Float64s(nil, img)
		require.NoError(t, err)
		want := golden.Float64s(t, m, c.out)
		assert.Zero(t, golden.Close(t, c.out, got, want, 1e-12), c.out)
		if u8, ok := m[c.out+".u8"]; ok {
			bytes, stats, err := e.Gray(nil, img)
			require.NoError(t, err)
			assert.Equal(t, u8.Data, bytes.Pix, c.out)
			var direct Stats
			direct.Add(want)
			assert.InDelta(t, direct.Mean(), stats.Mean(), 1e-12)
			assert.InDelta(t, direct.Std(), stats.Std(), 1e-12)
		}
	}
}

// The whole preparation of a film: 1024x1024, resized, equalized, as bytes.
// The film is the formula of golden/scripts/b9.py, xray(1024, 1024, "b9.big").
func TestGoldenChain(t *testing.T) {
	m := golden.Tensors(t, "b9_clahe/clahe.safetensors")
	const n = 1024
	film := image.NewGray(image.Rect(0, 0, n, n))
	unit := golden.Unit("b9.big", n*n)
	bell := func(x, m, s float64) float64 { return (x - m) / s * ((x - m) / s) }
	for i := range film.Pix {
		x, y := float64(i%n)/n, float64(i/n)/n
		v := 150 - 110*math.Exp(-(bell(x, .3, .13)+bell(y, .5, .3))) - 105*math.Exp(-(bell(x, .7, .13)+bell(y, .52, .3)))
		if math.Abs(x-.5) > .08 {
			v += 25 * math.Cos(38*y)
		}
		v += 40*math.Exp(-bell(x, .5, .05)) + 8*float64(unit[i])
		v *= min(max(1.15-1.1*math.Pow(math.Abs(y-.5), 3)*4, 0), 1)
		film.Pix[i] = uint8(math.RoundToEven(min(max(v, 0), 255)))
	}
	for y := range 64 {
		require.Equal(t, m["resize.in1024_crop"].Data[y*64:][:64], film.Pix[y*n:][:64], "row %d of the formula", y)
	}
	for _, size := range []int{512, 256, 128, 640} {
		out, err := resize.Linear(film, size, size)
		require.NoError(t, err)
		want := m[fmt.Sprintf("resize.%d", size)] // whole, or its first 64 rows and columns
		for y := range want.Shape[0] {
			w := want.Shape[1]
			require.Equal(t, want.Data[y*w:][:w], out.Pix[y*size:][:w], "size %d, row %d", size, y)
		}
	}
	small, err := resize.Linear(film, 256, 256)
	require.NoError(t, err)
	var e Equalizer
	bytes, stats, err := e.Gray(nil, small)
	require.NoError(t, err)
	assert.Equal(t, m["chain256.u8"].Data, bytes.Pix)
	assert.InDelta(t, 0.5601059382362497, stats.Mean(), 1e-12) // clahe.json, "chain256"; numpy sums floats, we whole numbers
	assert.InDelta(t, 0.21161714261575204, stats.Std(), 1e-12)
}

func TestStats(t *testing.T) {
	var all, a, b Stats
	all.Add([]float64{0, 0.25, 0.5, 1})
	a.Add([]float64{0, 0.25})
	b.Add([]float64{0.5, 1})
	a.Merge(b)
	assert.Equal(t, all, a)
	assert.Equal(t, 0.4375, a.Mean())
	assert.InDelta(t, 0.36975498644372606, a.Std(), 1e-15) // numpy.std([0, .25, .5, 1])
	assert.True(t, math.IsNaN(Stats{}.Mean()))
}

// An Equalizer that was used for larger and smaller images gives the same as a
// new one, and a subimage of a larger picture is read correctly.
func TestReuseAndViews(t *testing.T) {
	big := picture("film", 150, 140)
	small := picture("noise", 40, 30)
	view := big.SubImage(image.Rect(11, 23, 101, 76)).(*image.Gray)
	flat := image.NewGray(image.Rect(0, 0, 90, 53))
	for y := range 53 {
		copy(flat.Pix[y*90:], view.Pix[y*view.Stride:][:90])
	}
	var e Equalizer
	var values []float64
	for _, img := range []*image.Gray{big, small, view, big, small} {
		var err error
		values, err = e.Float64s(values, img)
		require.NoError(t, err)
		assert.Equal(t, must(Equalize(img)), values)
	}
	assert.Equal(t, must(Equalize(flat)), must(Equalize(view)))
	for _, empty := range []image.Rectangle{{}, {Max: image.Pt(0, 5)}, {Min: image.Pt(3, 3), Max: image.Pt(1, 1)}} {
		assert.Empty(t, must(e.Float64s(values, &image.Gray{Rect: empty})))
		out, stats, err := e.Gray(nil, &image.Gray{Rect: empty})
		require.NoError(t, err)
		assert.Empty(t, out.Pix)
		assert.Zero(t, stats)
	}

	want, _, err := e.Gray(nil, flat)
	require.NoError(t, err)
	before := append([]uint8(nil), big.Pix...)
	got, _, err := e.Gray(view, view) // in place
	require.NoError(t, err)
	for y := range 53 {
		require.Equal(t, want.Pix[y*90:][:90], got.Pix[y*got.Stride:][:90])
	}
	changed := 0
	for i := range before {
		if x, y := i%140, i/140; !image.Pt(x, y).In(view.Rect) {
			require.Equal(t, before[i], big.Pix[i])
		} else if before[i] != big.Pix[i] {
			changed++
		}
	}
	assert.Greater(t, changed, 1000)
}

func TestBadOptions(t *testing.T) {
	for _, opt := range []Options{{KernelRows: -1}, {KernelCols: 1 << 20}, {ClipLimit: -0.1}, {ClipLimit: 1.1}, {ClipLimit: math.NaN()}, {Bins: -2}, {Bins: 1 << 15}} {
		_, err := New(&opt)
		assert.ErrorContains(t, err, "clahe: ", "%+v", opt)
	}
}

func BenchmarkGray(b *testing.B) {
	for _, size := range []int{128, 256, 512, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			img := picture("film", size, size)
			var e Equalizer
			out, _, err := e.Gray(nil, img)
			require.NoError(b, err)
			b.SetBytes(int64(size * size))
			b.ReportAllocs()
			for b.Loop() {
				e.Gray(out, img)
			}
		})
	}
}

func BenchmarkFloat64s256(b *testing.B) {
	img := picture("film", 256, 256)
	var e Equalizer
	var out []float64
	b.ReportAllocs()
	for b.Loop() {
		out, _ = e.Float64s(out, img)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// An image whose fields contradict each other is an error, not a panic.
func TestShortImage(t *testing.T) {
	sound := image.NewGray(image.Rect(0, 0, 8, 6))
	for _, img := range []*image.Gray{
		{Pix: sound.Pix[:47], Stride: 8, Rect: sound.Rect},
		{Pix: nil, Stride: 8, Rect: sound.Rect},
		{Pix: sound.Pix, Stride: 7, Rect: sound.Rect},
	} {
		var e Equalizer
		_, _, err := e.Gray(nil, img)
		assert.ErrorContains(t, err, "clahe: an image of 8x6 pixels")
		_, err = Equalize(img)
		assert.ErrorContains(t, err, "has ")
		// As the place for the result it is passed over.
		out, _, err := e.Gray(img, sound)
		assert.NoError(t, err)
		assert.Len(t, out.Pix, 48)
	}
}

package rle

import (
	"bytes"
	"errors"
	"image"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// draw makes a mask from rows of '.' and '#'.
func draw(rows ...string) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, len(rows[0]), len(rows)))
	for y, row := range rows {
		for x, c := range row {
			if c == '#' {
				m.Pix[y*m.Stride+x] = 255
			}
		}
	}
	return m
}

var formats = map[string]Options{
	"SIIM":                 SIIM,
	"TGS":                  TGS,
	"row-major":            {Order: RowMajor},
	"row-major, from one":  {Order: RowMajor, Starts: FromOne},
	"row-major, from zero": {Order: RowMajor, Starts: FromZero},
}

func TestEncode(t *testing.T) {
	for _, tc := range []struct {
		name string
		mask *image.Gray
		want map[string]string // worked out by hand
	}{
		{"an L that crosses columns", draw(
			"..#.",
			".##.",
			".#..",
		), map[string]string{
			"SIIM": "4 4", "TGS": "5 4",
			"row-major": "2 1 2 2 2 1", "row-major, from one": "3 1 6 2 10 1", "row-major, from zero": "2 1 5 2 9 1",
		}},
		{"first and last pixel", draw(
			"#....",
			".....",
			"....#",
		), map[string]string{
			"SIIM": "0 1 13 1", "TGS": "1 1 15 1",
			"row-major": "0 1 13 1", "row-major, from one": "1 1 15 1", "row-major, from zero": "0 1 14 1",
		}},
		{"full", draw("##", "##", "##"), map[string]string{
			"SIIM": "0 6", "TGS": "1 6", "row-major": "0 6", "row-major, from one": "1 6", "row-major, from zero": "0 6",
		}},
		{"empty", draw("...", "..."), map[string]string{
			"SIIM": "-1", "TGS": "", "row-major": "-1", "row-major, from one": "-1", "row-major, from zero": "-1",
		}},
	} {
		for name, want := range tc.want {
			opt := formats[name]
			assert.Equal(t, want, Encode(tc.mask, &opt), "%s: %s", tc.name, name)
			back, err := Decode(want, tc.mask.Rect.Dx(), tc.mask.Rect.Dy(), &opt)
			require.NoError(t, err)
			assert.Equal(t, tc.mask, back, "%s: %s", tc.name, name)
		}
	}
	assert.Equal(t, "4 4", Encode(draw("..#.", ".##.", ".#.."), nil), "nil options are SIIM's")
	assert.Equal(t, "-1", Encode(new(image.Gray), nil), "an image without pixels")
}

// slowEdges computes edges pixel by pixel.
func slowEdges(m *image.Gray, order Order) (e []int) {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	before := false
	for i := range w * h {
		x, y := i/h, i%h
		if order == RowMajor {
			x, y = i%w, i/w
		}
		v := m.GrayAt(m.Rect.Min.X+x, m.Rect.Min.Y+y).Y != 0
		if v != before {
			e = append(e, i)
		}
		before = v
	}
	if before {
		e = append(e, w*h)
	}
	return e
}

// Masks of many sizes, with any grey values, as parts of larger images.
func TestEdgesAgainstSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 600 {
		w, h := 1+rng.IntN(40), 1+rng.IntN(40)
		whole := image.NewGray(image.Rect(0, 0, w+rng.IntN(9), h+rng.IntN(9)))
		if rng.IntN(4) == 0 {
			for i := range whole.Pix {
				whole.Pix[i] = uint8(rng.Uint32()) * uint8(rng.IntN(2))
			}
		}
		for range rng.IntN(4) { // rectangles
			x, y := rng.IntN(w), rng.IntN(h)
			for j := y; j < h && j < y+11; j++ {
				for i := x; i < w && i < x+13; i++ {
					whole.Pix[j*whole.Stride+i] = 1 + uint8(rng.IntN(255))
				}
			}
		}
		x0, y0 := whole.Rect.Dx()-w, whole.Rect.Dy()-h
		m := whole.SubImage(image.Rect(x0, y0, x0+w, y0+h)).(*image.Gray)
		for _, order := range []Order{ColumnMajor, RowMajor} {
			got := edges(m.Pix, m.Stride, w, h, order)
			require.Equal(t, slowEdges(m, order), got, "%v, order %d", m.Rect, order)
		}

		binary := image.NewGray(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				if m.GrayAt(x0+x, y0+y).Y != 0 {
					binary.Pix[y*w+x] = 255
				}
			}
		}
		for name, opt := range formats {
			s := Encode(m, &opt)
			require.Equal(t, s, EncodePixels(binary.Pix, w, h, &opt), name)
			back, err := Decode(s, w, h, &opt)
			require.NoError(t, err, name)
			require.Equal(t, binary.Pix, back.Pix, name)
			before := make([]uint8, w*h)
			for i := range before {
				before[i] = uint8(rng.Uint32())
			}
			union := slices.Clone(before)
			require.NoError(t, DecodeInto(union, s, w, h, &opt), name)
			for i, v := range binary.Pix {
				require.Equal(t, before[i]|v, union[i], name)
			}
			runs, err := Parse(s, w*h, &opt)
			require.NoError(t, err, name)
			area := 0
			for _, r := range runs {
				area += r.Length
			}
			require.Equal(t, bytes.Count(binary.Pix, []byte{255}), area, name)
			counts, err := DecodeCounts(Counts(m, opt.Order), w, h, opt.Order)
			require.NoError(t, err, name)
			require.Equal(t, binary.Pix, counts.Pix, name)
		}
	}
}

func TestDecodeReadsWhiteSpaceAndBothEmpties(t *testing.T) {
	for _, s := range []string{"", " ", "-1", " -1", "-1\n", "\t-1 "} {
		for _, opt := range []Options{SIIM, TGS, {Kernel: true}} {
			m, err := Decode(s, 3, 2, &opt)
			require.NoError(t, err, "%q", s)
			assert.Equal(t, draw("...", "..."), m, "%q", s)
		}
	}
	m, err := Decode(" 1 2\t 1  2\r\n", 3, 2, nil)
	require.NoError(t, err)
	assert.Equal(t, draw(".##", "#.#"), m)
}

func TestDecodeErrors(t *testing.T) {
	for _, tc := range []struct {
		s      string
		opt    Options
		offset int
		msg    string
	}{
		{"1 2 3", SIIM, 4, "a start without a length; want pairs of numbers"},
		{"7", SIIM, 0, "a start without a length; want pairs of numbers"},
		{"1 -2", SIIM, 2, `a negative number; "-1" means an empty mask only when it stands alone`},
		{"-1 0", SIIM, 0, `a negative number; "-1" means an empty mask only when it stands alone`},
		{"-1 -1", SIIM, 0, `a negative number; "-1" means an empty mask only when it stands alone`},
		{"3 1 -2 1", SIIM, 4, `a negative number; "-1" means an empty mask only when it stands alone`},
		{"1 2.5", SIIM, 3, `unexpected character '.'; want digits and spaces`},
		{"1,2", SIIM, 1, `unexpected character ','; want digits and spaces`},
		{"+1 2", SIIM, 0, `unexpected character '+'; want digits and spaces`},
		{"1 0", SIIM, 2, "a run of length 0"},
		{"12 1", SIIM, 0, "run starts outside the image, which has 12 pixels"},
		{"10 3", SIIM, 3, "run leaves the image: it starts at pixel 10 of 12 (counted from 0) and is longer than 2"},
		{"0 4294967297", SIIM, 2, "run leaves the image: it starts at pixel 0 of 12 (counted from 0) and is longer than 12"},
		{"0 99999999999999999999999999", SIIM, 2, "run leaves the image: it starts at pixel 0 of 12 (counted from 0) and is longer than 12"},
		{"18446744073709551616 1", SIIM, 0, "run starts outside the image, which has 12 pixels"},
		{"1 2 9223372036854775807 1", SIIM, 4, "run starts outside the image, which has 12 pixels"},
		{"0 1", TGS, 0, "start 0; this format counts pixels from 1"},
		{"13 1", TGS, 0, "run starts outside the image, which has 12 pixels"},
		{"3 3 5 1", TGS, 4, "run starts at pixel 4, before the end 5 of the run before it (both counted from 0)"},
		{"7 1 1 1", TGS, 4, "run starts at pixel 0, before the end 7 of the run before it (both counted from 0)"},
		{"7 1 0 1", TGS, 4, "run starts at pixel -1, before the end 7 of the run before it (both counted from 0)"},
		{"1 2 x 1", Options{Kernel: true}, 4, `"x" is not a number of 32 bits`},
		{"1 2 3", Options{Kernel: true}, 5, "a start without a length; want pairs of numbers"},
		{"2 2 2 99999999999", Options{Kernel: true}, 6, `"99999999999" is not a number of 32 bits`},
	} {
		m, err := Decode(tc.s, 4, 3, &tc.opt)
		var syntax *SyntaxError
		require.True(t, errors.As(err, &syntax), "%q: %v", tc.s, err)
		assert.Equal(t, SyntaxError{tc.offset, tc.msg}, *syntax, "%q", tc.s)
		assert.Nil(t, m)
		if !tc.opt.Kernel {
			_, err = Parse(tc.s, 12, &tc.opt)
			assert.EqualError(t, err, syntax.Error(), "%q", tc.s)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, size := range [][2]int{{0, 3}, {3, 0}, {-1, 3}, {1 << 15, 1<<14 + 1}, {1 << 30, 1 << 30}} {
		_, err := Decode("0 1", size[0], size[1], nil)
		assert.ErrorContains(t, err, "image size")
		_, err = DecodeCounts([]int{1}, size[0], size[1], ColumnMajor)
		assert.ErrorContains(t, err, "image size")
	}
	assert.EqualError(t, DecodeInto(make([]uint8, 5), "0 1", 3, 2, nil), "rle: a mask of 5 bytes is not 3x2 pixels")
	_, err := Parse("0 1", 0, nil)
	assert.Error(t, err)
	assert.Panics(t, func() { EncodePixels(make([]uint8, 5), 3, 2, nil) })
	assert.Panics(t, func() { Encode(draw("#"), &Options{Kernel: true, Starts: FromOne}) })
	assert.Panics(t, func() { Encode(draw("#"), &Options{Order: 7}) })
	assert.Panics(t, func() { _, _ = Parse("0 1", 6, &Options{Kernel: true}) })
}

func TestDecodeIntoIsAUnion(t *testing.T) {
	dst := make([]uint8, 4*3)
	for _, s := range []string{"1 4", "3 4", "11 1"} {
		require.NoError(t, DecodeInto(dst, s, 4, 3, nil))
	}
	assert.Equal(t, draw(
		".##.",
		"##..",
		"##.#",
	).Pix, dst)
}

func TestCounts(t *testing.T) {
	l := draw(
		"#.#.",
		"###.",
		"....",
	)
	// By hand, and as pycocotools.mask.encode counts them.
	assert.Equal(t, []int{0, 2, 2, 1, 1, 2, 4}, Counts(l, ColumnMajor))
	assert.Equal(t, []int{0, 1, 1, 1, 1, 3, 5}, Counts(l, RowMajor))
	assert.Equal(t, []int{6}, Counts(draw("...", "..."), ColumnMajor))
	assert.Equal(t, []int{0, 6}, Counts(draw("###", "###"), ColumnMajor))
	assert.Equal(t, []int{0}, Counts(new(image.Gray), ColumnMajor))

	m, err := DecodeCounts([]int{0, 1, 0, 1, 2, 1, 1, 0, 0, 2, 4}, 4, 3, ColumnMajor)
	require.NoError(t, err)
	assert.Equal(t, l, m, "runs of 0 join their neighbours")

	for _, tc := range []struct {
		counts []int
		want   string
	}{
		{[]int{3, 2}, "rle: at offset 2: the counts sum to 5; a 3x2 image has 6 pixels"},
		{[]int{3, 2, 2}, "rle: at offset 2: count 2 at pixel 5 of 6; want 0 to 1"},
		{[]int{3, -1, 4}, "rle: at offset 1: count -1 at pixel 3 of 6; want 0 to 3"},
		{nil, "rle: at offset 0: the counts sum to 0; a 3x2 image has 6 pixels"},
	} {
		_, err := DecodeCounts(tc.counts, 3, 2, ColumnMajor)
		assert.EqualError(t, err, tc.want)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("1 2 3 1", uint8(3), uint8(4), uint8(0))
	f.Add("-1", uint8(5), uint8(1), uint8(1))
	f.Add("1 2 2 9", uint8(7), uint8(9), uint8(5))
	f.Add("-1 0 3 4 -9 2", uint8(7), uint8(3), uint8(6))
	f.Fuzz(func(t *testing.T, s string, width, height, format uint8) {
		w, h := int(width), int(height)
		opt := Options{Order: Order(format & 1), Starts: Starts(format >> 1 % 3), Empty: Empty(format >> 4 & 1)}
		if format&8 != 0 {
			opt.Starts, opt.Kernel = Relative, true
		}
		m, err := Decode(s, w, h, &opt)
		if err != nil {
			return
		}
		opt.Kernel = false
		canonical := Encode(m, &opt)
		back, err := Decode(canonical, w, h, &opt)
		if err != nil || !bytes.Equal(m.Pix, back.Pix) {
			t.Fatalf("%q -> %q -> %v, %v", s, canonical, back, err)
		}
		if again := Encode(back, &opt); again != canonical {
			t.Fatalf("%q is not canonical: %q", canonical, again)
		}
		if len(canonical) > len(s)+2 && !strings.Contains(s, "-") && opt.Starts == Relative && format&8 == 0 {
			t.Fatalf("%q grew to %q", s, canonical)
		}
	})
}

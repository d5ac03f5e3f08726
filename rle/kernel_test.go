package rle

import (
	"encoding/json"
	"image"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/internal/golden"
)

// The helper as written: it goes along the rows, and writes "" for an empty
// mask.
var helper = Options{Kernel: true, Order: RowMajor, Empty: Blank}

// What the notebook's helper returns for 8x8 arrays. Made with its own code in
// Python 3.11, numpy 1.24.2: a = zeros((8, 8), uint8), the pixels set as here,
// mask2rle(a, 8, 8).
func TestKernelHelper(t *testing.T) {
	type pixel struct {
		row, col int
		v        uint8
	}
	for _, tc := range []struct {
		name   string
		pixels []pixel
		want   string
	}{
		{"empty", nil, ""},
		{"small", []pixel{{2, 3, 255}, {2, 4, 255}, {2, 5, 255}, {3, 0, 255}, {3, 1, 255}, {5, 5, 255}}, "19 3 2 2 19 1"},
		{"first pixel", []pixel{{0, 0, 255}}, "0 1"},
		{"last pixel: lost", []pixel{{7, 7, 255}}, ""},
		{"run across rows", []pixel{{1, 6, 255}, {1, 7, 255}, {2, 0, 255}, {2, 1, 255}, {2, 2, 255}}, "14 5"},
		{"grey values", []pixel{{1, 2, 255}, {1, 3, 128}, {1, 4, 255}, {1, 5, 64}}, "10 1 1 1 -1 0"},
		{"ones are not 255", []pixel{{1, 2, 1}, {1, 3, 1}}, "-1 0 -1 0"},
	} {
		m := image.NewGray(image.Rect(0, 0, 8, 8))
		transposed := image.NewGray(m.Rect)
		for _, p := range tc.pixels {
			m.Pix[p.row*8+p.col] = p.v
			transposed.Pix[p.col*8+p.row] = p.v
		}
		assert.Equal(t, tc.want, Encode(m, &helper), tc.name)
		assert.Equal(t, tc.want, Encode(transposed, &Options{Kernel: true, Empty: Blank}), "%s, columns", tc.name)
	}
}

// Slices of a numpy array of 12: bounds below 0 count from its end, bounds
// outside are cut. The wanted masks are those of
//
//	def rle2mask(rle, n=12):
//	    m, at, v = np.zeros(n, int), 0, list(map(int, rle.split()))
//	    for gap, length in zip(v[::2], v[1::2]):
//	        at += gap; m[at:at+length] = 1; at += length
//	    return ''.join('.#'[x] for x in m)
func TestKernelDecode(t *testing.T) {
	for s, want := range map[string]string{
		"2 3":                        "..###.......",
		"2 3 1 2":                    "..###.##....",
		"2 3 -1 0 1 2":               "..#####.....",
		"10 7":                       "..........##",
		"20 7":                       "............",
		"-5 2":                       ".......##...",
		"-5 9":                       "............",
		"4 -2 1 3":                   "...###......",
		"-3 2147483647":              ".........###",
		"-20 10":                     "##..........",
		"2147483647 1":               "............",
		"9 1 -3 2 -1 0":              ".......###..",
		"0 12":                       "############",
		"0 -3":                       "#########...",
		"-2147483648 1 3 2147483647": "###.........",
	} {
		m, err := Decode(s, 4, 3, &helper)
		require.NoError(t, err, s)
		got := strings.NewReplacer("\x00", ".", "\xff", "#").Replace(string(m.Pix))
		assert.Equal(t, want, got, s)
	}
}

// The masks and strings of the notebook's own code.
func TestKernelGoldens(t *testing.T) {
	arrays := golden.Tensors(t, "b7_rle/rle.safetensors")
	var all map[string]json.RawMessage
	golden.JSON(t, "b7_rle/rle.json", &all)
	type entry struct {
		Width, Height int // of the helper's arguments: rows, columns
		RLE           string
		Equal         *bool `json:"roundtrip_equal"`
		Runs          int   `json:"n_tokens"`
	}
	arrays8 := 0
	for name, raw := range all {
		var e entry
		if raw[0] != '{' || json.Unmarshal(raw, &e) != nil || e.Width == 0 {
			continue
		}
		m := gray(t, arrays, name)
		require.Equal(t, image.Pt(e.Height, e.Width), m.Rect.Size(), name)
		assert.Equal(t, e.RLE, Encode(m, &helper), name)
		if e.Equal != nil && *e.Equal {
			back, err := Decode(e.RLE, e.Height, e.Width, &helper)
			require.NoError(t, err)
			assert.Equal(t, m.Pix, back.Pix, name)
		}
		lawful, err := Decode(Encode(m, nil), e.Height, e.Width, nil)
		require.NoError(t, err)
		for i, v := range m.Pix {
			require.Equal(t, v != 0, lawful.Pix[i] == 255, "%s: pixel %d", name, i)
		}
		arrays8++
	}
	require.GreaterOrEqual(t, arrays8, 10)

	// The submission path: prediction, nearest neighbour to 1024x1024, string.
	for size, name := range map[int]string{64: "path64", 128: "path128", 256: "path256"} {
		m := gray(t, arrays, name+".mask")
		require.Equal(t, size, m.Rect.Dx())
		var e entry
		require.NoError(t, json.Unmarshal(all[name+".NEAREST"], &e))
		for i, v := range m.Pix {
			m.Pix[i] = v * 255
		}
		full, err := resize.Nearest(m, 1024, 1024)
		require.NoError(t, err)
		kernel := Encode(full, &Options{Kernel: true})
		assert.Equal(t, e.RLE, kernel, name)

		// The last pixel of these masks is set, in 1024/size columns: the
		// notebook loses the last run; this package does not.
		s := Encode(full, nil)
		lost, found := strings.CutPrefix(s, kernel+" ")
		assert.True(t, found, name)
		assert.Len(t, strings.Fields(lost), 2, name)
		back, err := Decode(s, 1024, 1024, nil)
		require.NoError(t, err)
		assert.Equal(t, full.Pix, back.Pix, name)
	}
}

// gray returns a golden array of bytes as a mask of the same rows.
func gray(t *testing.T, arrays map[string]checkpoint.Tensor, name string) *image.Gray {
	t.Helper()
	a, ok := arrays[name]
	require.True(t, ok, name)
	require.Len(t, a.Shape, 2, name)
	return &image.Gray{Pix: a.Data, Stride: a.Shape[1], Rect: image.Rect(0, 0, a.Shape[1], a.Shape[0])}
}

// Masks of 0 and 255 are encoded by their edges, with the text of the helper's loop;
// one other value anywhere in the mask, and the loop itself is taken.
func TestKernelEdges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		w, h := 1+r.IntN(20), 1+r.IntN(9)
		m := image.NewGray(image.Rect(0, 0, w+r.IntN(3), h)).SubImage(image.Rect(0, 0, w, h)).(*image.Gray)
		v := uint8(0)
		for i := range m.Pix {
			if r.IntN(5) == 0 {
				v = ^v
			}
			m.Pix[i] = v
		}
		for _, order := range []Order{ColumnMajor, RowMajor} {
			require.Equal(t, string(kernelAppendGrey(nil, m.Pix, m.Stride, w, h, order)),
				Encode(m, &Options{Kernel: true, Empty: Blank, Order: order}), "%dx%d %v", w, h, m.Pix)
		}
		require.True(t, onlyExtremes(m.Pix, m.Stride, w, h))
		m.Pix[m.PixOffset(r.IntN(w), r.IntN(h))] = uint8(1 + r.IntN(254))
		require.False(t, onlyExtremes(m.Pix, m.Stride, w, h))
	}
}

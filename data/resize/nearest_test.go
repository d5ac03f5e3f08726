package resize

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hcunet/hcunet/internal/golden"
)

func TestNearest(t *testing.T) {
	m := draw(
		"#..",
		".##",
	)
	assert.Equal(t, draw(
		"##....",
		"##....",
		"##....",
		"..####",
		"..####",
		"..####",
	), must(Nearest(m, 6, 6)))
	assert.Equal(t, draw("..", "##"), must(Nearest(draw("....", "#.#.", "####", "####"), 2, 2)), "down: the pixel at the centre")
	assert.Equal(t, draw("#.", "##"), must(Nearest(draw("...", ".#.", ".##").SubImage(image.Rect(1, 1, 3, 3)).(*image.Gray), 2, 2)))
	_, err := Nearest(m, 0, 3)
	assert.ErrorContains(t, err, "target of 0x3")
	_, err = Nearest(new(image.Gray), 3, 3)
	assert.ErrorContains(t, err, "empty")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// draw returns a mask, 255 at each #.
func draw(rows ...string) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, len(rows[0]), len(rows)))
	for y, row := range rows {
		for x := range row {
			if row[x] == '#' {
				m.Pix[y*m.Stride+x] = 255
			}
		}
	}
	return m
}

// CRC-32 of the source indices of 22,506 pairs of sizes, Pillow 9.4.0:
//
//	c = 0
//	pairs = [(s, d) for s in range(1, 151) for d in range(1, 151)]
//	for s, d in pairs + [(341, 1024), (1000, 1024), (1024, 1000), (2022, 1024), (2500, 2048), (3000, 999)]:
//	    im = Image.fromarray(np.arange(s, dtype=np.float32)[None])
//	    c = zlib.crc32(np.asarray(im.resize((d, 1), Image.NEAREST))[0].astype('<i4').tobytes(), c)
func TestNearestIsPillows(t *testing.T) {
	c := uint32(0)
	pair := func(s, d int) {
		b := make([]byte, 0, 4*d)
		for _, i := range nearest(s, d) {
			b = binary.LittleEndian.AppendUint32(b, uint32(i))
		}
		c = crc32.Update(c, crc32.IEEETable, b)
	}
	for s := 1; s <= 150; s++ {
		for d := 1; d <= 150; d++ {
			pair(s, d)
		}
	}
	for _, p := range [][2]int{{341, 1024}, {1000, 1024}, {1024, 1000}, {2022, 1024}, {2500, 2048}, {3000, 999}} {
		pair(p[0], p[1])
	}
	assert.Equal(t, uint32(0xf4f1da0a), c)

	// Accumulating the coordinate is not the same as multiplying it: 3.5*2/7 is
	// 1, but half a step and three more are a little less.
	assert.Equal(t, []int{0, 0, 0, 0, 1, 1, 1}, nearest(2, 7))
}

func TestNearestGoldens(t *testing.T) {
	arrays := golden.Tensors(t, "b7_rle/rle.safetensors")
	for name, sizes := range map[string][2]int{
		"nearest_index.100to256": {100, 256},
		"nearest_index.76to1024": {76, 1024},
		"nearest_index.256to100": {256, 100},
	} {
		want := golden.Float64s(t, arrays, name)
		got := nearest(sizes[0], sizes[1])
		for i := range want {
			if got[i] != int(want[i]) {
				t.Fatalf("%s: index %d is %d, want %v", name, i, got[i], want[i])
			}
		}
	}
}

func TestNearestByAWholeFactorRepeatsPixels(t *testing.T) {
	for _, s := range []int{1, 7, 100, 128, 256, 341} {
		for _, k := range []int{1, 2, 3, 4, 8} {
			for i, v := range nearest(s, s*k) {
				if v != i/k {
					t.Fatalf("%d to %d: index %d is %d", s, s*k, i, v)
				}
			}
		}
	}
}

func BenchmarkNearest(b *testing.B) {
	m := image.NewGray(image.Rect(0, 0, 256, 256))
	copy(m.Pix[100*256:], bytes.Repeat([]byte{255}, 999))
	for b.Loop() {
		Nearest(m, 1024, 1024)
	}
}

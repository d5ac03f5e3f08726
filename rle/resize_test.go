package rle

import (
	"bytes"
	"image"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hcunet/hcunet/internal/golden"
)

func TestResize(t *testing.T) {
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
	), Resize(m, 6, 6))
	assert.Equal(t, draw("..", "##"), Resize(draw("....", "#.#.", "####", "####"), 2, 2), "down: the pixel at the centre")
	assert.Equal(t, draw("#.", "##"), Resize(draw("...", ".#.", ".##").SubImage(image.Rect(1, 1, 3, 3)).(*image.Gray), 2, 2))
	assert.Panics(t, func() { Resize(m, 0, 3) })
	assert.Panics(t, func() { Resize(new(image.Gray), 3, 3) })
}

// Where accumulating the coordinate and multiplying it differ. Made with
// Pillow 9.4.0, s to d pixels:
//
//	a = np.arange(s, dtype=np.float32)[None]
//	np.asarray(Image.fromarray(a).resize((d, 1), Image.NEAREST))[0]
func TestNearestAccumulates(t *testing.T) {
	golden.Path(t, "golden/b7_rle/rle.safetensors")
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

func TestResizeByAWholeFactorRepeatsPixels(t *testing.T) {
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

func BenchmarkResize(b *testing.B) {
	m := image.NewGray(image.Rect(0, 0, 256, 256))
	copy(m.Pix[100*256:], bytes.Repeat([]byte{255}, 999))
	for b.Loop() {
		Resize(m, 1024, 1024)
	}
}

package libtorch

import (
	"image"
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/predict"
	"github.com/stretchr/testify/require"
)

// Where only one tile covers a pixel, its probability is exactly that of the tile
// predicted as a film of its own. Where two tiles overlap, the probability lies between
// theirs.
func TestTiles(t *testing.T) {
	a, _ := model(t)
	whole, err := predict.New(a, Backend{Threads: 1}, nil)
	require.NoError(t, err)
	defer whole.Close()
	tiled, err := predict.New(a, Backend{Threads: 1}, &predict.Options{Tiles: &predict.Tiles{Overlap: 0.25}})
	require.NoError(t, err)
	defer tiled.Close()

	const width, second = 112, 48 // tiles of 64 pixels, 48 pixels apart: at columns 0 and 48
	film := image.NewGray(image.Rect(0, 0, width, size))
	r := rand.New(rand.NewPCG(5, 6))
	for i := range film.Pix {
		film.Pix[i] = uint8(r.IntN(60) + 2*(i%width)%150)
	}
	got, err := tiled.Image(t.Context(), film)
	require.NoError(t, err)
	require.Equal(t, image.Pt(width, size), image.Pt(got.ProbWidth, got.ProbHeight))
	alone := func(x int) []float32 {
		cut := image.NewGray(image.Rect(0, 0, size, size))
		for y := range size {
			copy(cut.Pix[y*size:][:size], film.Pix[y*width+x:])
		}
		r, err := whole.Image(t.Context(), cut)
		require.NoError(t, err)
		return r.Prob
	}
	left, right := alone(0), alone(second)
	between := 0
	for k := range len(got.Prob) / (width * size) {
		for y := range size {
			for x := range width {
				p, row := got.Prob[(k*size+y)*width+x], (k*size+y)*size
				switch {
				case x < second:
					require.Equal(t, left[row+x], p)
				case x >= size:
					require.Equal(t, right[row+x-second], p)
				default:
					l, r := left[row+x], right[row+x-second]
					require.GreaterOrEqual(t, p, min(l, r))
					require.LessOrEqual(t, p, max(l, r))
					if l != r {
						between++
					}
				}
			}
		}
	}
	require.Positive(t, between)
}

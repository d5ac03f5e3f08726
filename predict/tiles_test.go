package predict

import (
	"image"
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/stretchr/testify/require"
)

// The tiles of an identity agree wherever they overlap, so the mean is exactly the film,
// for films of any shape, larger or smaller than a tile.
func TestTilesOfIdentity(t *testing.T) {
	for _, size := range []image.Point{{64, 64}, {61, 19}, {8, 33}, {9, 8}, {8, 8}, {5, 30}, {3, 2}, {100, 1}} {
		for _, overlap := range []float64{0, 0.2, 0.8} {
			e := &identity{}
			p := open(t, e, &Options{Tiles: &Tiles{Overlap: overlap}})
			r := rand.New(rand.NewPCG(1, 2))
			film := &picture.Image{Width: size.X, Height: size.Y, Channels: 1}
			var want []float32
			for range size.X * size.Y {
				v := uint8(r.Uint32())
				film.Pix8 = append(film.Pix8, v)
				want = append(want, float32(v)/255)
			}
			got, err := p.Film(t.Context(), &data.Film{Image: film})
			require.NoError(t, err)
			require.Equal(t, want, got.Prob, "%v", size)
			require.LessOrEqual(t, got.Timings.Compute, got.Timings.Waited, "each batch counts once, and the film waits for all of them")
			require.Equal(t, size, got.Mask().Rect.Size())
			for i, v := range got.Mask().Pix {
				require.Equal(t, want[i] > 0.5, v == 255)
			}
		}
	}
}

// Films with several channels and 16 bits are cropped correctly, also over the edge.
func TestCrop(t *testing.T) {
	m := &picture.Image{Width: 3, Height: 2, Channels: 2, Pix16: []uint16{1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60}}
	require.Equal(t, []uint16{2, 3, 5, 6, 20, 30, 50, 60}, crop(m, 1, 0, 2).Pix16)
	require.Equal(t, []uint16{0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 20, 30, 0, 40, 50, 60, 0, 0, 0, 0}, crop(m, -1, -1, 4).Pix16)
}

// "image size of 110, patch size of 64 and step_size of 0.5, then we want to make 3
// steps starting at coordinate 0, 23, 46": nnU-Net 2.5, compute_steps_for_sliding_window.
func TestStarts(t *testing.T) {
	require.Equal(t, []int{0, 23, 46}, starts(110, 64, 0.5))
	require.Equal(t, []int{0}, starts(64, 64, 0.5))
	require.Equal(t, []int{0, 1}, starts(65, 64, 0.5))
}

// The expected numbers are from scipy, with which nnU-Net computes its weights:
//
//	t = np.zeros((64, 64)); t[32, 32] = 1
//	g = scipy.ndimage.gaussian_filter(t, [8, 8], 0, mode='constant', cval=0); g /= g.max()
//	g[32, 40], g[32, 0], g[0, 0], g[20, 45]
func TestGaussian(t *testing.T) {
	w := gaussian(64)
	require.Equal(t, 1.0, w[32])
	require.InDelta(t, 0.6065306597126334, w[32]*w[40], 1e-15)
	require.InDelta(t, 0.0003354626279025119, w[32]*w[0], 1e-18)
	require.InDelta(t, 1.1253517471925913e-07, w[0]*w[0], 1e-21)
	require.InDelta(t, 0.08669903721880781, w[20]*w[45], 1e-16)
}

func TestTilesTooLarge(t *testing.T) {
	p := open(t, &identity{}, &Options{Tiles: &Tiles{}})
	_, err := p.Image(t.Context(), image.NewGray(image.Rect(0, 0, 1<<14, 1<<13)))
	require.ErrorContains(t, err, "too large for tiles")
}

package augment

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// A mask, and an image that is not resampled, hold the pixels that Nearest names. Other
// plans have no such rows and columns.
func TestNearest(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	const h, w = 11, 14
	mask := make([]int, h*w)
	image := make([]float32, h*w)
	for i := range mask {
		mask[i], image[i] = i, float32(i)
	}
	for _, size := range []int{0, 3, 6, 11, 20, 27} { // 6 and 27 have pixels halfway between two of the source
		for range 20 {
			plan, err := Config{PFlip: 0.5}.Draw(r).Plan(h, w, size)
			require.NoError(t, err)
			rows, cols, ok := plan.Nearest()
			require.True(t, ok)
			want := make([]int, 0, plan.H*plan.W)
			for _, y := range rows {
				for _, x := range cols {
					want = append(want, y*w+x)
				}
			}
			require.Equal(t, want, Mask(&plan, nil, mask), "size %d", size)
			if !plan.Resample {
				for i, v := range plan.Image(nil, image) {
					require.Equal(t, want[i], int(v), "size %d", size)
				}
			}
		}
	}
	plan, err := Params{Degrees: 3}.Plan(h, w, 0)
	require.NoError(t, err)
	_, _, ok := plan.Nearest()
	require.False(t, ok)
}

package nn_test

import (
	"math"
	"sync"
	"testing"

	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Evaluation drops nothing. Training drops a share p of the elements, divides the
// others by 1-p, and passes gradients through exactly those that it keeps.
func TestDropout(t *testing.T) {
	const n, p = 40_000, 0.3
	x := nn.Full(nn.CPU, nn.Double, 2, 1, 4, 100, 100)
	nn.SetRequiresGrad(x, true)
	d := nn.NewDropout(p)
	require.Equal(t, values(t, x), values(t, d.Forward(nn.Eval, x)))
	y := d.Forward(nn.Train, x)
	require.NoError(t, nn.Backward(nn.Sum(y)))
	grad, ok := nn.Grad(x)
	require.True(t, ok)
	dropped, g := 0.0, values(t, grad)
	for i, v := range values(t, y) {
		if v == 0 {
			dropped++
		}
		require.InDelta(t, v/2, g[i], 1e-15)
		require.True(t, v == 0 || math.Abs(v-2/(1-p)) < 1e-15)
	}
	require.InDelta(t, p, dropped/n, 5*math.Sqrt(p*(1-p)/n)) // within five standard errors
	require.Panics(t, func() { nn.NewDropout(1) })
}

// With Channels, all elements of a channel are dropped, or none.
func TestDropoutOfChannels(t *testing.T) {
	d := nn.NewDropout(0.5)
	d.Channels = true
	y := values(t, d.Forward(nn.Train, nn.Full(nn.CPU, nn.Float, 1, 8, 8, 3, 5)))
	met := map[float64]bool{}
	for i := 0; i < len(y); i += 15 {
		met[y[i]] = true
		for _, v := range y[i:][:15] {
			require.Equal(t, y[i], v)
		}
	}
	require.Equal(t, map[float64]bool{0: true, 2: true}, met)
}

// The masks of a step can be repeated from the number of the step, whatever was drawn
// before and whichever goroutines draw at the same time. Each layer, each step and
// each use within a step has its own mask.
func TestDropoutRepeats(t *testing.T) {
	x := nn.Full(nn.CPU, nn.Float, 1, 1, 1, 8, 8)
	step := func(net nn.Sequential, step uint64) (masks [][]float64) {
		nn.SeedDropout(net, 5, 0, step)
		for range 2 {
			for _, l := range net {
				masks = append(masks, values(t, l.Forward(nn.Train, x)))
			}
		}
		return masks
	}
	net := nn.Sequential{nn.NewDropout(0.5), nn.NewDropout(0.5)}
	want := [][][]float64{step(net, 0), step(net, 1)}
	seen := want[0]
	seen = append(seen, want[1]...)
	for i := range seen {
		for j := range i {
			require.NotEqual(t, seen[i], seen[j], "masks %d and %d", i, j)
		}
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			own := nn.Sequential{nn.NewDropout(0.5), nn.NewDropout(0.5)}
			for range 20 {
				assert.Equal(t, want[1], step(own, 1))
				assert.Equal(t, want[0], step(own, 0))
			}
		})
	}
	all.Wait()
}

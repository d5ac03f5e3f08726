package nn_test

import (
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// With one process, whose sums are its own, a synchronized batch norm gives the outputs,
// gradients and running statistics of a plain batch norm.
func TestSyncBatchNormAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pixels, weights := make([]float64, 2*3*4*5), make([]float64, 2*3*4*5)
	for i := range pixels {
		// With a mean this large, a variance from the mean of squares would lose digits.
		pixels[i], weights[i] = 100+r.NormFloat64(), r.NormFloat64()
	}
	step := func(synchronize bool) (values [][]float64) {
		in := nn.NewInit(nn.CPU, 1)
		in.DType = nn.Double
		bn := nn.NewBatchNorm2d(in, 3, &nn.BatchNormOptions{Bias: 0.3})
		if synchronize {
			nn.SyncBatchNorm(bn, func(t torch.Tensor) torch.Tensor { return t })
		}
		x, err := nn.FromSlice(nn.CPU, pixels, 2, 3, 4, 5)
		require.NoError(t, err)
		w, err := nn.FromSlice(nn.CPU, weights, 2, 3, 4, 5)
		require.NoError(t, err)
		nn.SetRequiresGrad(x, true)
		y := bn.Forward(nn.Train, x)
		require.NoError(t, nn.Backward(nn.Sum(nn.Mul(y, w))))
		collect := func(ts ...torch.Tensor) {
			for _, t1 := range ts {
				v, err := nn.Slice[float64](t1)
				require.NoError(t, err)
				values = append(values, v)
			}
		}
		g, ok := nn.Grad(x)
		require.True(t, ok)
		collect(y, g)
		for _, n := range nn.State(bn) {
			collect(n.Tensor)
			if g, ok := nn.Grad(n.Tensor); ok {
				collect(g)
			}
		}
		return values
	}
	want, got := step(false), step(true)
	require.Len(t, got, len(want))
	for i := range want {
		require.InDeltaSlice(t, want[i], got[i], 1e-11) // sums of 40 values around 100, in another order
	}
}

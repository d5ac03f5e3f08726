package nn_test

import (
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/shim"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// The upsampling and the residual block give the same results and gradients as one step each
// and by libtorch's operators. The memory format of an upsampled map without blur tells which of
// the two it was.
func TestFusedOnCPU(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 0))
	random := func(shape ...int64) torch.Tensor {
		v := make([]float32, shape[0]*shape[1]*shape[2]*shape[3])
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		x, err := nn.FromSlice(nn.CPU, v, shape...)
		require.NoError(t, err)
		nn.SetRequiresGrad(x, true)
		return x
	}
	x, skip := random(2, 6, 4, 8), random(2, 3, 8, 16)
	golden.AVX2(t)
	up := nn.NewPixelShuffleICNR(nn.NewInit(nn.CPU, 1), 6, 5, nn.PixelShuffleOptions{})
	plain := nn.NewPixelShuffleICNR(nn.NewInit(nn.CPU, 1), 6, 5, nn.PixelShuffleOptions{NoBlur: true})
	block := nn.NewResBlock(nn.NewInit(nn.CPU, 2), 8, nn.NormNone, true)
	parameters := append(nn.Parameters(up), nn.Parameters(block)...)
	parameters = append(parameters, nn.Named{Name: "x", Tensor: x}, nn.Named{Name: "skip", Tensor: skip})

	results := func(fused bool) (all [][]float64, upsampledLast bool) {
		defer shim.FusedLayers(shim.FusedLayers(fused))
		nn.Scope(func() {
			upsampledLast = channelsLast(t, plain.Forward(nn.Train, x))
			y := block.Forward(nn.Train, up.Join(nn.Train, x, skip, false))
			require.NoError(t, nn.Backward(nn.Mean(nn.Mul(y, y))))
			all = append(all, values(t, y))
			for _, p := range parameters {
				g, ok := nn.Grad(p.Tensor)
				require.True(t, ok, p.Name)
				all = append(all, values(t, g))
			}
		})
		require.NoError(t, nn.DropGrad(parameters))
		return all, upsampledLast
	}
	want, last := results(false)
	require.True(t, last, "libtorch's operators upsample with channels last")
	same := func(got [][]float64) {
		t.Helper()
		golden.Close(t, "result", got[0], want[0], 1e-6) // float32 sums of up to 72 products
		for i, p := range parameters {
			golden.Close(t, p.Name, got[1+i], want[1+i], 1e-6)
		}
	}
	got, last := results(true)
	require.False(t, last)
	same(got)

	// With kernels in another format, libtorch's convolutions return maps in that format.
	require.NoError(t, nn.SetChannelsLast(block))
	got, _ = results(true)
	same(got)
}

func channelsLast(t *testing.T, x torch.Tensor) bool {
	info, err := shim.Inspect(x)
	require.NoError(t, err)
	return info.ChannelsLast
}

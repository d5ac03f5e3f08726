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
// and by libtorch's operators, under autocast too up to the rounding of bfloat16. The memory
// format of an upsampled map without blur tells which of the two it was.
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

	results := func(fused, autocast bool) (all [][]float64, types []nn.DType, upsampledLast bool) {
		defer shim.FusedLayers(shim.FusedLayers(fused))
		nn.Scope(func() {
			var y torch.Tensor
			forward := func() {
				upsampled := plain.Forward(nn.Train, x)
				joined := up.Join(nn.Train, x, skip, false)
				y = block.Forward(nn.Train, joined)
				upsampledLast = channelsLast(t, upsampled)
				types = []nn.DType{nn.DTypeOf(upsampled), nn.DTypeOf(joined), nn.DTypeOf(y)}
			}
			if autocast {
				nn.Autocast(nn.CPU, nn.BFloat16, forward)
			} else {
				forward()
			}
			require.NoError(t, nn.Backward(nn.Mean(nn.Mul(y, y))))
			all = append(all, values(t, y))
			for _, p := range parameters {
				g, ok := nn.Grad(p.Tensor)
				require.True(t, ok, p.Name)
				require.Equal(t, nn.Float, nn.DTypeOf(g), p.Name)
				all = append(all, values(t, g))
			}
		})
		require.NoError(t, nn.DropGrad(parameters))
		return all, types, upsampledLast
	}
	want, _, last := results(false, false)
	require.True(t, last, "libtorch's operators upsample with channels last")
	same := func(got [][]float64, tolerance float64) {
		t.Helper()
		golden.Close(t, "result", got[0], want[0], tolerance)
		for i, p := range parameters {
			golden.Close(t, p.Name, got[1+i], want[1+i], tolerance)
		}
	}
	const single = 1e-6 // float32 sums of up to 72 products
	got, _, last := results(true, false)
	require.False(t, last)
	same(got, single)

	// Six results are rounded by at most 1/256 each on the way to a gradient.
	const half = 0.02
	general, types, last := results(false, true)
	require.True(t, last)
	same(general, half)
	require.Equal(t, []nn.DType{nn.BFloat16, nn.Float, nn.Float}, types, "autocast concatenates and adds in the wider type")
	got, types, last = results(true, true)
	require.False(t, last)
	same(got, half)
	require.Equal(t, []nn.DType{nn.BFloat16, nn.BFloat16, nn.BFloat16}, types, "a joined map is in autocast's type, as on a GPU")
	require.NotEqual(t, general, got)

	// With kernels in another format, libtorch's convolutions return maps in that format.
	require.NoError(t, nn.SetChannelsLast(block))
	for autocast, tolerance := range map[bool]float64{false: single, true: half} {
		got, _, _ = results(true, autocast)
		same(got, tolerance)
	}
}

// A residual block adds to a map in float32 what autocast computes in bfloat16, in float32.
func TestResBlockUnderAutocast(t *testing.T) {
	block := nn.NewResBlock(nn.NewInit(nn.CPU, 2), 8, nn.NormNone, false)
	for _, dtype := range []nn.DType{nn.Float, nn.BFloat16} {
		nn.Scope(func() {
			x := nn.To(nn.Full(nn.CPU, nn.Float, 0.3, 1, 8, 4, 8), nn.CPU, dtype)
			nn.Autocast(nn.CPU, nn.BFloat16, func() {
				y := block.Forward(nn.Eval, x)
				require.Equal(t, dtype, nn.DTypeOf(y))
				defer shim.FusedLayers(shim.FusedLayers(false))
				require.Equal(t, values(t, block.Forward(nn.Eval, x)), values(t, y))
			})
		})
	}
}

func channelsLast(t *testing.T, x torch.Tensor) bool {
	info, err := shim.Inspect(x)
	require.NoError(t, err)
	return info.ChannelsLast
}

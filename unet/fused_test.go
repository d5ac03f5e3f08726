package unet_test

import (
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/shim"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
	"gonum.org/v1/gonum/floats"
)

// TestFusedLayers compares scores and gradients in float16 on a GPU, where layers of the
// decoder are one step each, with those of float32: their errors are about as large as
// those of the general path in float16.
func TestFusedLayers(t *testing.T) {
	if !testdevice.Device.CUDA() {
		t.Skip("only a GPU computes these networks by fused layers; their operators are tested on the CPU too. HCUNET_DEVICE=cuda:0 runs this test on a GPU")
	}
	for name, cfg := range map[string]unet.Config{
		"default": {}, "detached": {DetachSkips: true}, "bottle": {Bottle: true}, "no blur": {Blur: unet.BlurNone},
		"weight norm": {Norm: nn.NormWeight}, "batch norm": {Norm: nn.NormBatch}, "plain": {NoHypercolumns: true, NoLastCross: true},
		"no hypercolumns": {NoHypercolumns: true},
	} {
		t.Run(name, func(t *testing.T) {
			in := nn.NewInit(testdevice.Device, 1)
			net := unet.New(in, resnet.New18(in, 3), 2, cfg)
			x, target := randomBatch(t)
			fusing := true
			results := func(autocast bool) (scores []float64, grads [][]float64) {
				const scale = 1024 // keeps small gradients in float16's range
				return scoresAndGradients(t, net, x, target, scale, func(forward func()) {
					if !autocast {
						forward()
						return
					}
					nn.Autocast(testdevice.Device, nn.Half, func() {
						on, err := shim.Fused(x)
						require.NoError(t, err)
						require.Equal(t, fusing, on)
						forward()
					})
				})
			}
			want, wantGrads := results(false)
			require.NoError(t, nn.SetChannelsLast(net))
			fused, fusedGrads := results(true)
			require.True(t, shim.FusedLayers(false))
			defer shim.FusedLayers(true)
			fusing = false
			plain, plainGrads := results(true)
			require.NotEqual(t, plainGrads, fusedGrads, "the fused layers round in other places")

			worst, usual := golden.Close(t, "scores", fused, want, 0.02), golden.Close(t, "scores of the general path", plain, want, 0.02)
			t.Logf("worst error of a score %.2g, of the general path %.2g", worst, usual)
			all := floats.Norm(concat(wantGrads), 2)
			for i, p := range nn.Parameters(net) {
				size := max(floats.Norm(wantGrads[i], 2), 1e-4*all)
				worst, usual := floats.Distance(fusedGrads[i], wantGrads[i], 2)/size, floats.Distance(plainGrads[i], wantGrads[i], 2)/size
				// Both round in other places, which moves other inputs of ReLUs over zero.
				require.Less(t, worst, 2*usual+0.02, "the error of the gradient of %s", p.Name)
			}
		})
	}
}

// TestFusedLayersOnCPU compares scores and gradients in float32 and bfloat16 on a CPU with AVX2,
// where layers of the decoder are one step each, with those of libtorch's operators in float32.
// Only the two last maps are wide enough for that here.
func TestFusedLayersOnCPU(t *testing.T) {
	golden.AVX2(t)
	if testdevice.Device.CUDA() {
		t.Skip("only a CPU computes these networks by these layers")
	}
	x, target := randomBatch(t)
	for name, cfg := range map[string]unet.Config{
		"default": {}, "bottle, no blur, weight norm": {Bottle: true, Blur: unet.BlurNone, Norm: nn.NormWeight},
	} {
		t.Run(name, func(t *testing.T) {
			in := nn.NewInit(testdevice.Device, 1)
			net := unet.New(in, resnet.New18(in, 3), 2, cfg)
			results := func(fused, autocast bool) ([]float64, [][]float64) {
				defer shim.FusedLayers(shim.FusedLayers(fused))
				return scoresAndGradients(t, net, x, target, 1, func(forward func()) {
					if autocast {
						nn.Autocast(testdevice.Device, nn.BFloat16, forward)
					} else {
						forward()
					}
				})
			}
			got, grads := results(true, false)
			want, wantGrads := results(false, false)
			half, halfGrads := results(true, true)
			plain, plainGrads := results(false, true)
			require.NotEqual(t, wantGrads, grads, "the fused layers round in other places")
			require.NotEqual(t, plainGrads, halfGrads, "in bfloat16 too")
			golden.Close(t, "scores", got, want, 1e-5)
			golden.Close(t, "scores in bfloat16", half, want, 0.05)
			golden.Close(t, "scores of the general path in bfloat16", plain, want, 0.05)
			all := floats.Norm(concat(wantGrads), 2)
			for i, p := range nn.Parameters(net) {
				size := max(floats.Norm(wantGrads[i], 2), 1e-4*all)
				far := func(grads [][]float64) float64 { return floats.Distance(grads[i], wantGrads[i], 2) / size }
				// Rounding moves some inputs of ReLUs over zero.
				require.Less(t, far(grads), 1e-3, "the error of the gradient of %s", p.Name)
				require.Less(t, far(halfGrads), 2*far(plainGrads)+0.02, "the error of the gradient of %s in bfloat16", p.Name)
			}
		})
	}
}

// randomBatch returns two random images of 64x96 pixels and random targets of two classes.
func randomBatch(t *testing.T) (x, target torch.Tensor) {
	const n, h, w = 2, 64, 96
	r := rand.New(rand.NewPCG(8, 0))
	pixels, mask := make([]float32, n*3*h*w), make([]int64, n*h*w)
	for i := range pixels {
		pixels[i] = float32(r.NormFloat64())
	}
	for i := range mask {
		mask[i] = r.Int64N(2)
	}
	target, err := nn.FromSlice(testdevice.Device, mask, n, h, w)
	require.NoError(t, err)
	return tensor(t, nn.Float, pixels, n, 3, h, w), target
}

// scoresAndGradients returns the scores of a network and the gradients of its parameters,
// times scale; around calls the function that it gets, which is the forward pass.
func scoresAndGradients(t *testing.T, net *unet.Net, x, target torch.Tensor, scale float64, around func(forward func())) (scores []float64, grads [][]float64) {
	scoped(t, func() {
		var y torch.Tensor
		around(func() { y = net.Forward(nn.Eval, x) })
		y = nn.To(y, testdevice.Device, nn.Float)
		scores = values(t, y)
		require.NoError(t, nn.Backward(nn.MulScalar(crossEntropy.Forward(y, target), scale)))
		for _, p := range nn.Parameters(net) {
			g, ok := nn.Grad(p.Tensor)
			require.True(t, ok, p.Name)
			require.Equal(t, nn.Float, nn.DTypeOf(g), p.Name)
			grads = append(grads, values(t, g))
		}
	})
	require.NoError(t, nn.DropGrad(nn.Parameters(net)))
	return scores, grads
}

func concat(vs [][]float64) (all []float64) {
	for _, v := range vs {
		all = append(all, v...)
	}
	return all
}

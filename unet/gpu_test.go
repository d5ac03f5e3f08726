package unet_test

import (
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
	"gonum.org/v1/gonum/floats"
)

// TestFusedLayers compares scores and gradients in float16 on a GPU, where layers of the
// decoder are one step each, with those of the general path in float32.
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
			const n, h, w = 2, 64, 96
			r := rand.New(rand.NewPCG(8, 0))
			pixels, mask := make([]float32, n*3*h*w), make([]int64, n*h*w)
			for i := range pixels {
				pixels[i] = float32(r.NormFloat64())
			}
			for i := range mask {
				mask[i] = r.Int64N(2)
			}
			x := tensor(t, nn.Float, pixels, n, 3, h, w)
			y, err := nn.FromSlice(testdevice.Device, mask, n, h, w)
			require.NoError(t, err)
			var outs [2][]float64
			var grads [2][][]float64
			for i := range 2 {
				if i == 1 {
					require.NoError(t, nn.SetChannelsLast(net))
				}
				scoped(t, func() {
					const scale = 1024 // keeps small gradients in float16's range
					var scores torch.Tensor
					forward := func() { scores = net.Forward(nn.Eval, x) }
					if i == 0 {
						forward()
					} else {
						nn.Autocast(testdevice.Device, nn.Half, forward)
					}
					scores = nn.To(scores, testdevice.Device, nn.Float)
					outs[i] = values(t, scores)
					require.NoError(t, nn.Backward(nn.MulScalar(crossEntropy.Forward(scores, y), scale)))
					for _, p := range nn.Parameters(net) {
						g, ok := nn.Grad(p.Tensor)
						require.True(t, ok, p.Name)
						require.Equal(t, nn.Float, nn.DTypeOf(g), p.Name)
						grads[i] = append(grads[i], values(t, g))
					}
				})
				require.NoError(t, nn.DropGrad(nn.Parameters(net)))
			}
			worst := golden.Close(t, "scores", outs[1], outs[0], 0.02)
			all := floats.Norm(concat(grads[0]), 2)
			largest, where := 0.0, ""
			for i, p := range nn.Parameters(net) {
				// Relative to the parameter's gradient, or to 1e-3 of all.
				d := floats.Distance(grads[0][i], grads[1][i], 2) / max(floats.Norm(grads[0][i], 2), 1e-3*all)
				if d > largest {
					largest, where = d, p.Name
				}
			}
			t.Logf("worst error of a score %.2g; of a gradient %.2g, %s", worst, largest, where)
			require.Less(t, largest, 0.05, where)
		})
	}
}

func concat(vs [][]float64) (all []float64) {
	for _, v := range vs {
		all = append(all, v...)
	}
	return all
}

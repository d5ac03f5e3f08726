package unet_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/encoder"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
	"gonum.org/v1/gonum/floats"
)

// A tinyEncoder has five convolutions with ReLU, each of which halves its input.
type tinyEncoder struct{ nn.Sequential }

var tinyWidths = []int64{3, 4, 5, 6, 8}

func newTinyEncoder(in *nn.Init, c int64) tinyEncoder {
	var e tinyEncoder
	for _, w := range tinyWidths {
		e.Sequential = append(e.Sequential, nn.NewConv2d(in, c, w, 3, &nn.ConvOptions{Stride: 2, Padding: 1}))
		c = w
	}
	return e
}

func (e tinyEncoder) InChannels() int64 { return e.Sequential[0].(*nn.Conv2d).In }
func (e tinyEncoder) Kind() encoder.Kind {
	return encoder.Kind{
		Name: "tiny", Widths: tinyWidths, Strides: []int64{2, 4, 8, 16, 32},
		Groups: 2, Group: func(name string) int {
			if name[0] >= '3' {
				return 1
			}
			return 0
		},
		New: func(in *nn.Init, channels int64) encoder.Encoder { return newTinyEncoder(in, channels) },
	}
}
func (e tinyEncoder) LoadWeights(f *checkpoint.File) error { return nn.LoadState(e, f) }
func (e tinyEncoder) Features(mode nn.Mode, x torch.Tensor) (maps []torch.Tensor) {
	for _, conv := range e.Sequential {
		x = nn.ReLU(conv.Forward(mode, x))
		maps = append(maps, x)
	}
	return maps
}

func tinyNet(cfg unet.Config, dtype nn.DType) *unet.Net {
	in := nn.NewInit(testdevice.Device, 3)
	in.DType = dtype
	return unet.New(in, newTinyEncoder(in, 1), 2, cfg)
}

// batch returns two images of 64x32 and their masks: a bright ellipse, not at the
// centre, on noise.
func batch(t testing.TB, dtype nn.DType) (x, y torch.Tensor) {
	const n, h, w = 2, 64, 32
	pixels, mask := make([]float32, n*h*w), make([]int64, n*h*w)
	r := rand.New(rand.NewPCG(5, 0))
	for i := range pixels {
		item, row, col := i/(h*w), i/w%h, i%w
		dy, dx := float64(row-20-15*item)/12, float64(col-11-8*item)/6
		pixels[i] = float32(0.3 * r.NormFloat64())
		if dy*dy+dx*dx < 1 {
			mask[i] = 1
			pixels[i]++
		}
	}
	x = tensor(t, dtype, pixels, n, 1, h, w)
	y, err := nn.FromSlice(testdevice.Device, mask, n, h, w)
	require.NoError(t, err)
	return x, y
}

// TestGradient compares the gradient of each parameter in a random direction with the
// change of the loss in that direction. With detached skips they differ for the
// encoder's parameters.
func TestGradient(t *testing.T) {
	for _, test := range []struct {
		name string
		cfg  unet.Config
	}{
		{"default", unet.Config{}},
		{"plain", unet.Config{NoHypercolumns: true, NoLastCross: true, Blur: unet.BlurNone}},
		{"batch norm", unet.Config{Norm: nn.NormBatch, Bottle: true}},
		{"weight norm, range", unet.Config{Norm: nn.NormWeight, YRange: &[2]float64{-1, 2}, Blur: unet.BlurInner}},
		{"detached", unet.Config{DetachSkips: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			net := tinyNet(test.cfg, nn.Double)
			formula(t, net, nil) // in a new network some inputs of ReLUs are exactly 0, where the slope is not defined
			x, y := batch(t, nn.Double)
			loss := func() torch.Tensor { return crossEntropy.Forward(net.Forward(nn.Train, x), y) }
			scoped(t, func() { require.NoError(t, nn.Backward(loss())) })
			r := rand.New(rand.NewPCG(9, 0))
			worst := 0.0
			const tolerance = 1e-6 // relative to the norm of the parameter's gradient, or to 1e-3 of the norm of all
			whole, err := nn.GradNorm(nn.Parameters(net))
			require.NoError(t, err)
			for _, p := range nn.Parameters(net) {
				g, ok := nn.Grad(p.Tensor)
				require.True(t, ok, p.Name)
				grad, at := values(t, g), values(t, p.Tensor)
				direction, slope, length := make([]float64, len(grad)), 0.0, 0.0
				for i, v := range grad {
					direction[i] = r.NormFloat64()
					slope += direction[i] * v
					length += v * v
				}
				move := func(by float64) {
					moved := make([]float64, len(at))
					for i := range at {
						moved[i] = at[i] + by*direction[i]
					}
					scoped(t, func() {
						v, err := nn.FromSlice(testdevice.Device, moved, nn.Shape(p.Tensor)...)
						require.NoError(t, err)
						nn.CopyInto(p.Tensor, v)
					})
				}
				lossAt := func(by float64) (l float64) {
					move(by)
					scoped(t, func() { nn.NoGrad(func() { l = values(t, loss())[0] }) })
					return l
				}
				// If the input of a ReLU changes its sign within the step, the slope
				// differs. A shorter step avoids this, until the rounding of the loss,
				// 1e-16 of it, dominates.
				err := math.Inf(1)
				for h := 1e-6; h > 1e-9 && err > tolerance; h /= 10 {
					change := (lossAt(h) - lossAt(-h)) / (2 * h)
					err = min(err, math.Abs(change-slope)/max(math.Sqrt(length), 1e-3*whole))
				}
				move(0)
				if test.cfg.DetachSkips {
					if p.Name == "layers.0.0.weight" {
						require.Greater(t, err, 0.01, "the skips still pass a gradient")
					}
					if p.Name[:9] == "layers.0." {
						continue
					}
				}
				worst = max(worst, err)
				require.Less(t, err, tolerance, p.Name)
			}
			t.Logf("worst error of a slope %.2g", worst)
		})
	}
}

// Networks with different Blur give different scores.
func TestBlur(t *testing.T) {
	var outs [][]float64
	for _, blur := range []unet.Blur{unet.BlurAll, unet.BlurInner, unet.BlurNone} {
		net := tinyNet(unet.Config{Blur: blur}, nn.Double)
		x, _ := batch(t, nn.Double)
		scoped(t, func() { nn.NoGrad(func() { outs = append(outs, values(t, net.Forward(nn.Eval, x))) }) })
	}
	require.NotEqual(t, outs[0], outs[1])
	require.NotEqual(t, outs[1], outs[2])
}

// In bfloat16, which has eight bits of precision, the scores are those of float32 up to
// bfloat16's rounding in some twenty layers. The gradients of all parameters are
// float32, with about the direction of those computed in float32.
func TestBFloat16(t *testing.T) {
	net := tinyNet(unet.Config{}, nn.Float)
	x, y := batch(t, nn.Float)
	var outs, grads [2][]float64
	for i := range 2 {
		scoped(t, func() {
			var scores torch.Tensor
			forward := func() { scores = net.Forward(nn.Eval, x) }
			if i == 0 {
				forward()
			} else {
				nn.Autocast(testdevice.Device, nn.BFloat16, forward)
			}
			scores = nn.To(scores, testdevice.Device, nn.Float)
			outs[i] = values(t, scores)
			require.NoError(t, nn.Backward(crossEntropy.Forward(scores, y)))
			for _, p := range nn.Parameters(net) {
				g, ok := nn.Grad(p.Tensor)
				require.True(t, ok, p.Name)
				require.Equal(t, nn.Float, nn.DTypeOf(g), p.Name)
				grads[i] = append(grads[i], values(t, g)...)
			}
			require.NoError(t, nn.ZeroGrad(nn.Parameters(net)))
		})
	}
	worst := golden.Close(t, "scores", outs[1], outs[0], 0.05)
	require.NotEqual(t, outs[0], outs[1], "bfloat16 is in use")
	cos := floats.Dot(grads[0], grads[1]) / floats.Norm(grads[0], 2) / floats.Norm(grads[1], 2)
	t.Logf("worst error of a score %.2g, cosine of the gradients %.4f", worst, cos)
	require.Greater(t, cos, 0.95)
}

// Thirty steps on one batch reduce its loss to less than a tenth.
func TestOverfit(t *testing.T) {
	net := tinyNet(unet.Config{}, nn.Float)
	x, y := batch(t, nn.Float)
	adam, err := nn.DefaultAdam().New([][]nn.Named{nn.Parameters(net)})
	require.NoError(t, err)
	var first, last float64
	for i := range 30 {
		scoped(t, func() {
			l := crossEntropy.Forward(net.Forward(nn.Train, x), y)
			last = values(t, l)[0]
			require.NoError(t, nn.Backward(l))
		})
		require.NoError(t, adam.Step([]nn.Hyper{{Rate: 1e-2, Momentum: 0.9}}))
		require.NoError(t, nn.ZeroGrad(nn.Parameters(net)))
		if i == 0 {
			first = last
		}
	}
	t.Logf("loss %.3g, then %.3g", first, last)
	require.Less(t, last, first/10)
}

// Two runs from the same seed give the same gradients.
func TestRepeatable(t *testing.T) {
	testdevice.Repeatable(t)
	x, y := batch(t, nn.Float)
	run := func() (out []float64) {
		net := tinyNet(unet.Config{SelfAttention: true}, nn.Float)
		scoped(t, func() {
			require.NoError(t, nn.Backward(crossEntropy.Forward(net.Forward(nn.Train, x), y)))
			for _, p := range nn.Parameters(net) {
				g, ok := nn.Grad(p.Tensor)
				require.True(t, ok)
				out = append(out, values(t, g)...)
			}
		})
		return out
	}
	require.Equal(t, run(), run())
}

// Each training step leaves the same small number of tensors to its scope: of the
// hundred or so that a forward pass makes, only the results of the stages and the skips.
func TestMemory(t *testing.T) {
	net := tinyNet(unet.Config{}, nn.Float)
	x, y := batch(t, nn.Float)
	step := func() (freed int64) {
		require.NoError(t, nn.Try(func() {
			freed = nn.Scope(func() {
				require.NoError(t, nn.Backward(crossEntropy.Forward(net.Forward(nn.Train, x), y)))
			})
		}))
		return freed
	}
	first := step()
	require.Positive(t, first)
	require.Less(t, first, int64(30)) // 11 stages, 5 skips, the loss
	for range 5 {
		require.Equal(t, first, step())
	}
}

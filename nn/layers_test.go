package nn_test

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// rounding is the tolerance for the small cases in float64, relative to the largest
// element. A case has under 300 operations, each of which rounds by at most 1.1e-16,
// which makes 3.3e-14; the tolerance is three times that.
const rounding = 1e-13

// double makes layers of float64, the element type of testdata/layers.py.
func double() *nn.Init { return &nn.Init{Device: testdevice.Device, DType: nn.Double} }

// A single makes a layer of a function.
type single struct {
	f func(x torch.Tensor) torch.Tensor
}

func (s single) Forward(_ nn.Mode, x torch.Tensor) torch.Tensor { return s.f(x) }
func (single) Walk(nn.Walker)                                   {}
func (single) String() string                                   { return "single" }

func layerCases(t *testing.T) map[string]nn.Layer {
	bn := nn.NewBatchNorm2d(double(), 2, nil)
	bn.Momentum = 0.3
	return map[string]nn.Layer{
		"conv":                 nn.NewConv2d(double(), 2, 3, 3, &nn.ConvOptions{Stride: 2, Padding: 1}),
		"conv_1x1":             nn.NewConv2d(double(), 2, 3, 1, &nn.ConvOptions{NoBias: true}),
		"weight_norm":          nn.NewConv2d(double(), 2, 3, 3, &nn.ConvOptions{Padding: 1, Norm: nn.NormWeight}),
		"spectral_norm":        nn.NewConv2d(double(), 2, 3, 3, &nn.ConvOptions{Padding: 1, Norm: nn.NormSpectral}),
		"spectral_norm_eval":   nn.NewConv2d(double(), 2, 3, 3, &nn.ConvOptions{Padding: 1, Norm: nn.NormSpectral}),
		"batch_norm":           bn,
		"batch_norm_eval":      nn.NewBatchNorm2d(double(), 2, nil),
		"max_pool":             nn.MaxPool2d{Kernel: 3, Stride: 2, Padding: 1},
		"pixel_shuffle":        nn.NewPixelShuffleICNR(double(), 3, 2, nn.PixelShuffleOptions{Norm: nn.NormNone}),
		"pixel_shuffle_noblur": nn.NewPixelShuffleICNR(double(), 3, 2, nn.PixelShuffleOptions{Norm: nn.NormNone, NoBlur: true}),
		"attention":            nn.NewSelfAttention(double(), 8),
		"conv_dilated_grouped": nn.NewConv2d(double(), 4, 6, 3, &nn.ConvOptions{Stride: 2, Padding: 2, Dilation: 2, Groups: 2}),
		"conv_transpose":       nn.NewConvTranspose2d(double(), 2, 3, 3, &nn.ConvTransposeOptions{Stride: 2, Padding: 1}),
		"group_norm":           nn.NewGroupNorm(double(), 2, 4),
		"resize":               nn.Resize{Factor: 2.5},
		"resize_bilinear":      nn.Resize{Factor: 0.5, Bilinear: true},
		"global_avg_pool":      nn.GlobalPool{},
		"global_max_pool":      nn.GlobalPool{Max: true},
		"leaky_relu":           nn.LeakyReLU{Slope: 0.2},
		"gelu":                 nn.GELU{},
		"sigmoid_range":        nn.SigmoidRange{Low: -0.25, High: 1.25},
		"bilinear":             single{func(x torch.Tensor) torch.Tensor { return nn.ResizeBilinear(x, 5, 6) }},
		"nearest":              single{func(x torch.Tensor) torch.Tensor { return nn.ResizeNearest(x, 5, 6) }},
	}
}

// TestLayers compares each layer's output, its gradients, and its buffers after one
// forward pass with those of PyTorch: testdata/layers.py.
func TestLayers(t *testing.T) {
	var want map[string]struct {
		In, Shape    []int64
		Out, Grad    []float64
		Grads, State map[string][]float64
	}
	b, err := os.ReadFile("testdata/layers.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &want))
	cases := layerCases(t)
	require.Len(t, want, len(cases))
	for name, layer := range cases {
		w := want[name]
		t.Run(name, func(t *testing.T) {
			for _, n := range nn.State(layer) {
				if nn.DTypeOf(n.Tensor) == nn.Long {
					continue
				}
				v := golden.Unit(name+"."+n.Name, len(values(t, n.Tensor)))
				if strings.HasSuffix(n.Name, "running_var") {
					for i, x := range v {
						v[i] = float32(math.Abs(float64(x)) + 0.5)
					}
				}
				nn.CopyInto(n.Tensor, float32Tensor(t, v, nn.Shape(n.Tensor)...))
			}
			mode := nn.Mode(!strings.HasSuffix(name, "_eval"))
			x := nn.To(float32Tensor(t, golden.Unit(name+".x", product(w.In)), w.In...), testdevice.Device, nn.Double)
			nn.SetRequiresGrad(x, true)
			y := layer.Forward(mode, x)
			require.Equal(t, w.Shape, nn.Shape(y))
			golden.Close(t, "out", values(t, y), w.Out, rounding)

			by := float32Tensor(t, golden.Unit(name+".out", product(w.Shape)), w.Shape...)
			require.NoError(t, nn.Backward(nn.Sum(nn.Mul(y, by))))
			grad, ok := nn.Grad(x)
			require.True(t, ok)
			golden.Close(t, "gradient of the input", values(t, grad), w.Grad, rounding)
			parameters := 0
			for _, n := range nn.State(layer) {
				if n.Buffer {
					state, ok := w.State[n.Name]
					require.True(t, ok, n.Name)
					golden.Close(t, n.Name, values(t, n.Tensor), state, rounding)
					continue
				}
				grad, ok := nn.Grad(n.Tensor)
				require.True(t, ok, n.Name)
				golden.Close(t, "gradient of "+n.Name, values(t, grad), w.Grads[n.Name], rounding)
				parameters++
			}
			require.Len(t, w.Grads, parameters)
		})
	}
}

func product(shape []int64) int {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return int(n)
}

func float32Tensor(t testing.TB, v []float32, shape ...int64) torch.Tensor {
	t.Helper()
	x, err := nn.FromSlice(testdevice.Device, v, shape...)
	require.NoError(t, err)
	return x
}

func values(t testing.TB, x torch.Tensor) []float64 {
	t.Helper()
	v, err := nn.Slice[float64](x)
	require.NoError(t, err)
	return v
}

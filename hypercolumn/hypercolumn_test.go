package hypercolumn_test

import (
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/hypercolumn"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// A scene has columns for three maps of falling width and rising size, a map x of width
// channels, and the weight and bias of a 1x1 convolution to some classes.
type scene struct {
	columns      *hypercolumn.Columns
	maps         []torch.Tensor
	x            torch.Tensor
	weight, bias torch.Tensor
}

func newScene(t *testing.T, width, classes int64) scene {
	in := nn.NewInit(testdevice.Device, 2)
	in.DType = nn.Double
	r := rand.New(rand.NewPCG(4, 0))
	random := func(shape ...int64) torch.Tensor {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		v := make([]float64, n)
		for i := range v {
			v[i] = r.NormFloat64()
		}
		x, err := nn.FromSlice(testdevice.Device, v, shape...)
		require.NoError(t, err)
		nn.SetRequiresGrad(x, true)
		return x
	}
	s := scene{
		columns: hypercolumn.New(in, []int64{7, 5, 4}, width),
		maps:    []torch.Tensor{random(2, 7, 1, 2), random(2, 5, 3, 5), random(2, 4, 6, 10)}, // 1x2 and 3x5 are not 12x20 divided by a power of 2 on both axes
		x:       random(2, width, 12, 20),
		weight:  random(classes, 4*width, 1, 1),
		bias:    random(classes),
	}
	for _, p := range nn.Parameters(s.columns) { // with the initial biases of 0 an error in their code would not show
		v := make([]float32, len(values(t, p.Tensor)))
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		replacement, err := nn.FromSlice(testdevice.Device, v, nn.Shape(p.Tensor)...)
		require.NoError(t, err)
		nn.CopyInto(p.Tensor, replacement)
	}
	return s
}

func (s scene) leaves() []nn.Named {
	leaves := append(nn.Parameters(s.columns), nn.Named{Name: "x", Tensor: s.x},
		nn.Named{Name: "weight", Tensor: s.weight}, nn.Named{Name: "bias", Tensor: s.bias})
	for _, m := range s.maps {
		leaves = append(leaves, nn.Named{Name: "map", Tensor: m})
	}
	return leaves
}

func values(t *testing.T, x torch.Tensor) []float64 {
	t.Helper()
	v, err := nn.Slice[float64](x)
	require.NoError(t, err)
	return v
}

// gradients returns the scores, and the gradients of sum(scores²) for all leaves.
func (s scene) gradients(t *testing.T, forward func() torch.Tensor) (out [][]float64) {
	require.NoError(t, nn.DropGrad(s.leaves()))
	require.NoError(t, nn.Try(func() {
		nn.Scope(func() {
			y := forward()
			require.NoError(t, nn.Backward(nn.Sum(nn.Mul(y, y))))
			out = append(out, values(t, y))
			for _, l := range s.leaves() {
				g, ok := nn.Grad(l.Tensor)
				require.True(t, ok, l.Name)
				out = append(out, values(t, g))
			}
		})
	}))
	return out
}

// The folded head gives the same scores and gradients as the plain one, both where the
// 9 maps for each class are fewer than the width of the columns and where they are more.
func TestFolding(t *testing.T) {
	for name, s := range map[string]scene{"taps": newScene(t, 20, 2), "columns": newScene(t, 6, 3)} {
		t.Run(name, func(t *testing.T) {
			slow := s.gradients(t, func() torch.Tensor {
				return nn.Conv(s.columns.Forward(nn.Eval, s.maps, s.x), s.weight, s.bias, 1, 0)
			})
			fast := s.gradients(t, func() torch.Tensor { return s.columns.Project(nn.Eval, s.maps, s.x, s.weight, s.bias) })
			require.Equal(t, len(slow), len(fast))
			worst := 0.0
			for i := range slow {
				// Float64; each sum has a few hundred terms.
				worst = max(worst, golden.Close(t, "tensor", fast[i], slow[i], 1e-13))
			}
			t.Logf("worst error %.2g", worst)
		})
	}
}

func TestWithoutBias(t *testing.T) {
	s := newScene(t, 6, 3)
	slow := values(t, nn.Conv(s.columns.Forward(nn.Eval, s.maps, s.x), s.weight, torch.Tensor{}, 1, 0))
	golden.Close(t, "scores", values(t, s.columns.Project(nn.Eval, s.maps, s.x, s.weight, torch.Tensor{})), slow, 1e-13)
}

func TestWidth(t *testing.T) {
	s := newScene(t, 6, 3)
	require.EqualValues(t, 24, s.columns.Width())
	require.Equal(t, []int64{2, 24, 12, 20}, nn.Shape(s.columns.Forward(nn.Eval, s.maps, s.x)))
}

// A wrong number of maps is a panic that Try does not recover; wrong shapes are an error
// of libtorch.
func TestWrongMaps(t *testing.T) {
	s := newScene(t, 6, 3)
	require.Panics(t, func() { _ = nn.Try(func() { s.columns.Forward(nn.Eval, s.maps[1:], s.x) }) })
	require.Panics(t, func() { _ = nn.Try(func() { s.columns.Project(nn.Eval, s.maps[1:], s.x, s.weight, s.bias) }) })
	require.ErrorContains(t, nn.Try(func() { s.columns.Project(nn.Eval, s.maps, s.x, s.x, s.bias) }), "libtorch")
	swapped := []torch.Tensor{s.maps[1], s.maps[0], s.maps[2]}
	require.Error(t, nn.Try(func() { s.columns.Forward(nn.Eval, swapped, s.x) }))
}

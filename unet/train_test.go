package unet_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/floats"
)

// A gradient describes the gradient of one parameter in golden/b2_train/report.json.
type gradient struct {
	Norm, Sum float64
	Proj      float64   // sum of the gradient times Unit(name + "#proj")
	Index     []int     `json:"idx"`
	Value     []float64 `json:"val"` // at Index
}

// A step describes one training step in golden/b2_train/report.json.
type step struct {
	Loss    float64
	Norm    float64 `json:"total_grad_norm"`
	Grads   map[string]*gradient
	Running map[string]struct{ Sum, Norm float64 } // running statistics
}

// crossEntropy is the notebook's loss.
var crossEntropy = loss.Must(loss.CrossEntropy{}.New(data.Softmax, 2))

// trainStep runs the forward and backward pass of the reference's training step. It
// returns scores and loss; gradients and running statistics stay in net.
func trainStep(t *testing.T, net *unet.Net, dtype nn.DType) (out []float64, loss float64) {
	t.Helper()
	nn.SetBatchNormMomentum(net, 0.025) // 0.1*16/64
	scoped(t, func() {
		x := image(t, dtype, "train.input.2", 4, 3, 64, 64)
		target := make([]int64, 4*64*64)
		for i, v := range golden.Unit("train.target.2", len(target)) {
			if v > 0.6 {
				target[i] = 1
			}
		}
		y, err := nn.FromSlice(testdevice.Device, target, 4, 64, 64)
		require.NoError(t, err)
		scores := net.Forward(nn.Train, x)
		l := crossEntropy.Forward(scores, y)
		require.NoError(t, nn.Backward(l))
		out = values(t, scores)
		loss = values(t, l)[0]
	})
	return out, loss
}

// stepTolerances returns the tolerances of a training step, which allow for the
// rounding of any CPU and BLAS. That of scores, loss and statistics is relative to
// their largest element; that of a gradient's norm, sum and projection to its norm;
// that of its elements to the largest of them.
//
// Float64 rounds by up to 1.1e-16 of a value. In about a hundred layers that sum
// thousands of products in any order, errors up to 9e-14 were seen with norm_batch,
// which divides by standard deviations of 16 elements; 5e-13 is about six times that.
// A gradient passes all layers twice: 6e-14 was seen, and 4e-12 with norm_batch; the
// tolerances are at least ten times that.
//
// In float32 the forward pass differs from PyTorch's by up to 6e-6, or 5e-5 with
// norm_batch. The backward pass differs by up to 1e-5 until it reaches a ReLU with an
// input so close to 0 that rounding decides its sign, and with it whether the element's
// gradient passes. That depends on the CPU. The deepest maps of these inputs have only
// 2x2 and 4x4 pixels: on one CPU, one such element changed all gradients before it by
// 1.5e-2 of their norm as vectors and their norms by up to 4e-3, on another CPU there
// was no such element. TestFloat32Gradients has the strict tolerance, for networks
// without such elements.
func stepTolerances(dtype nn.DType, name string) (scores, whole, elements float64) {
	switch {
	case dtype == nn.Double && name == "norm_batch":
		return 5e-13, 5e-11, 5e-11
	case dtype == nn.Double:
		return 5e-13, 5e-12, 5e-12
	case name == "norm_batch":
		return 5e-4, 5e-2, 3e-1
	}
	return 3e-5, 2e-2, 1e-1
}

// trainOptions returns the names of the files of golden/b2_train, or of two of them in a
// short test run.
func trainOptions() []string {
	if !golden.Long() {
		return []string{"default", "norm_batch"}
	}
	return []string{"default", "self_attention", "last_cross_false", "bottle", "no_hypercolumns", "norm_batch", "norm_weight", "norm_spectral"}
}

// TestTrainingStep compares scores, loss, gradients and running statistics of a training
// step with detached skips, in float64 and in float32.
func TestTrainingStep(t *testing.T) {
	var report map[string]struct{ F32, F64 step }
	golden.JSON(t, "b2_train/report.json", &report)
	for _, name := range trainOptions() {
		t.Run(name, func(t *testing.T) {
			want := golden.Tensors(t, "b2_train/"+name+".safetensors")
			cfg := options[name]
			cfg.DetachSkips = true
			for _, dtype := range []nn.DType{nn.Double, nn.Float} {
				if dtype == nn.Float && name != "default" && name != "norm_batch" {
					continue // the same code runs in float64, where the tolerance is smaller
				}
				scores, whole, elements := stepTolerances(dtype, name)
				net := kernelNet(cfg, dtype)
				formula(t, net, want)
				out, loss := trainStep(t, net, dtype)
				ref := report[name].F64
				worst := golden.Close(t, "scores", out, golden.Float64s(t, want, "out.f64"), scores)
				golden.Close(t, "loss", []float64{loss}, []float64{ref.Loss}, scores)
				g := compareGradients(t, net, ref, want, whole, elements)
				s := compareBuffers(t, net, ref, want, scores)
				t.Logf("%v: worst error %.2g of scores, %.2g of a gradient's norm or projection, %.2g of its elements, %.2g of running statistics",
					dtype, worst, g[0], g[1], s)
			}
		})
	}
}

// The gradients in float32 are those in float64 up to rounding, for at least one of
// eight networks. In some networks rounding decides the sign of a ReLU's input or the
// place of a maximum, which changes gradients; an error in the float32 code would show
// in all of them. Batch norms use their running statistics here, because statistics of a
// few pixels make rounding errors large.
func TestFloat32Gradients(t *testing.T) {
	const tries, tolerance = 8, 1e-5 // about 100 roundings of 6e-8, forward and backward; 1e-6 to 4e-6 were seen
	best := math.Inf(1)
	for seed := range tries {
		var grads [2][][]float64
		for i, dtype := range []nn.DType{nn.Double, nn.Float} {
			in := nn.NewInit(testdevice.Device, uint64(seed))
			in.DType = dtype
			net := unet.New(in, resnet.New18(in, 3), 2, unet.Config{})
			scoped(t, func() {
				x := image(t, dtype, fmt.Sprint("float32.", seed), 2, 3, 32, 32)
				target := make([]int64, 2*32*32)
				for i := range target {
					target[i] = int64(i / 7 % 2)
				}
				y, err := nn.FromSlice(testdevice.Device, target, 2, 32, 32)
				require.NoError(t, err)
				require.NoError(t, nn.Backward(crossEntropy.Forward(net.Forward(nn.Eval, x), y)))
				for _, p := range nn.Parameters(net) {
					g, ok := nn.Grad(p.Tensor)
					require.True(t, ok, p.Name)
					grads[i] = append(grads[i], values(t, g))
				}
			})
		}
		best = min(best, worstDifference(grads[0], grads[1]))
		if best <= tolerance {
			return
		}
	}
	t.Fatalf("of %d networks the best float32 gradient differs by %.2g of its norm", tries, best)
}

// worstDifference returns the largest of the distances between a[i] and b[i], each
// divided by the norm of a[i], or by 1e-6 of the largest norm if that is more: the
// gradient of a bias before a batch norm is nothing but rounding.
func worstDifference(a, b [][]float64) (worst float64) {
	norms := make([]float64, len(a))
	for i := range a {
		norms[i] = floats.Norm(a[i], 2)
	}
	least := 1e-6 * slices.Max(norms)
	for i := range a {
		worst = max(worst, floats.Distance(a[i], b[i], 2)/max(norms[i], least))
	}
	return worst
}

// compareGradients compares net's gradients with the reference. It returns the largest
// error of norms, sums and projections, and the largest error of single elements.
func compareGradients(t *testing.T, net *unet.Net, ref step, want map[string]checkpoint.Tensor, whole, elements float64) (worst [2]float64) {
	t.Helper()
	parameters := nn.Parameters(net)
	require.Len(t, parameters, len(ref.Grads))
	var total float64
	for _, p := range parameters {
		r := ref.Grads[p.Name]
		grad, ok := nn.Grad(p.Tensor)
		require.Equal(t, r != nil, ok, p.Name)
		if !ok {
			continue
		}
		g := values(t, grad)
		var norm, sum, proj float64
		for i, u := range golden.Unit(p.Name+"#proj", len(g)) {
			norm += g[i] * g[i]
			sum += g[i]
			proj += g[i] * float64(u)
		}
		total += norm
		norm = math.Sqrt(norm)
		// The gradient of a bias before a batch norm is nothing but rounding; its error
		// is taken relative to the norm of all gradients. A sum of n elements may be
		// sqrt(n) times their norm.
		scale := max(r.Norm, 1e-6*ref.Norm)
		root := math.Sqrt(float64(len(g)))
		for _, e := range []float64{(norm - r.Norm) / scale, (sum - r.Sum) / scale / root, (proj - r.Proj) / scale / root} {
			worst[0] = max(worst[0], math.Abs(e))
			require.LessOrEqual(t, math.Abs(e), whole, p.Name)
		}
		sample := make([]float64, len(r.Index))
		for i, at := range r.Index {
			sample[i] = g[at]
		}
		largest := max(momentsOf(g).absMax, 1e-6*ref.Norm)
		for i := range sample {
			e := math.Abs(sample[i]-r.Value[i]) / largest
			worst[1] = max(worst[1], e)
			require.LessOrEqual(t, e, elements, p.Name)
		}
		if w, ok := want["grad."+p.Name]; ok && r.Norm > 1e-6*ref.Norm {
			v, err := w.Float64s()
			require.NoError(t, err)
			golden.Close(t, p.Name, g, v, max(elements, 1e-7)) // the reference file is in float32
		}
	}
	golden.Close(t, "norm of all gradients", []float64{math.Sqrt(total)}, []float64{ref.Norm}, whole)
	return worst
}

// compareBuffers compares running statistics, counts and singular vectors with the
// reference and returns the largest error of a norm.
func compareBuffers(t *testing.T, net *unet.Net, ref step, want map[string]checkpoint.Tensor, tolerance float64) (worst float64) {
	t.Helper()
	n := 0
	for _, b := range nn.State(net) {
		if !b.Buffer {
			continue
		}
		n++
		v := values(t, b.Tensor)
		r, ok := ref.Running[b.Name]
		require.True(t, ok, b.Name)
		var norm float64
		for _, x := range v {
			norm += x * x
		}
		worst = max(worst, golden.Close(t, b.Name+" norm", []float64{math.Sqrt(norm)}, []float64{r.Norm}, tolerance))
		golden.Close(t, b.Name, v, golden.Float64s(t, want, "buf."+b.Name), max(tolerance, 1e-7)) // the reference file is in float32
	}
	require.Equal(t, len(ref.Running), n)
	return worst
}

// TestFrozenStep compares a training step in which the encoder is frozen, except for its
// batch norms.
func TestFrozenStep(t *testing.T) {
	if !golden.Long() {
		t.Skip("takes half a minute; make test-long")
	}
	var report map[string]struct {
		Frozen struct {
			Grads     map[string]*gradient
			Trainable []string
			N         int64 `json:"n_trainable"`
		} `json:"frozen_f64"`
	}
	golden.JSON(t, "b2_train/report.json", &report)
	want := report["default"].Frozen
	net := kernelNet(unet.Config{DetachSkips: true}, nn.Double)
	formula(t, net, nil)
	for _, group := range net.LayerGroups()[:2] {
		for _, p := range group {
			if _, ok := p.Owner.(*nn.BatchNorm2d); !ok {
				nn.SetRequiresGrad(p.Tensor, false)
			}
		}
	}
	var trainable []string
	var n int64
	for _, p := range nn.Parameters(net) {
		if nn.RequiresGrad(p.Tensor) {
			trainable = append(trainable, p.Name)
			size := int64(1)
			for _, d := range nn.Shape(p.Tensor) {
				size *= d
			}
			n += size
		}
	}
	require.Equal(t, want.Trainable, trainable)
	require.Equal(t, want.N, n)
	require.EqualValues(t, 21_964_705, n)

	trainStep(t, net, nn.Double)
	worst := 0.0
	for _, p := range nn.Parameters(net) {
		r := want.Grads[p.Name]
		g, ok := nn.Grad(p.Tensor)
		require.Equal(t, r != nil, ok, p.Name)
		if !ok {
			continue
		}
		var norm float64
		for _, x := range values(t, g) {
			norm += x * x
		}
		worst = max(worst, golden.Close(t, p.Name, []float64{math.Sqrt(norm)}, []float64{r.Norm}, 1e-10))
	}
	t.Logf("worst error of a norm %.2g", worst)
}

// TestLayerGroups compares the names and the numbers of the parameters of each layer
// group.
func TestLayerGroups(t *testing.T) {
	var schedule struct {
		Groups [][]string `json:"layer_groups"`
	}
	golden.JSON(t, "b4_schedule/schedule.json", &schedule)
	counts := []int64{1_347_904, 19_936_768, 21_947_681}
	groups := shapesOfKernelNet(unet.Config{}).LayerGroups()
	require.Len(t, groups, 3)
	for i, group := range groups {
		var names []string
		var n int64
		for _, p := range group {
			names = append(names, p.Name)
			size := int64(1)
			for _, d := range nn.Shape(p.Tensor) {
				size *= d
			}
			n += size
		}
		require.Equal(t, schedule.Groups[i], names)
		require.Equal(t, counts[i], n)
	}
}

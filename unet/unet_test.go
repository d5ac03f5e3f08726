package unet_test

import (
	"os"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

func TestStateDict(t *testing.T) {
	var want [][]any // name, shape, type
	golden.JSON(t, "state_dict_keys.json", &want)
	state := nn.State(shapesOfKernelNet(unet.Config{}))
	require.Len(t, state, len(want))
	parameters, tensors := int64(0), 0
	for i, n := range state {
		require.Equal(t, want[i][0], n.Name)
		size := int64(1)
		for j, d := range want[i][1].([]any) {
			require.EqualValues(t, d, nn.Shape(n.Tensor)[j], n.Name)
			size *= int64(d.(float64))
		}
		require.Equal(t, want[i][2], nn.DTypeOf(n.Tensor).String(), n.Name)
		if !n.Buffer {
			parameters += size
			tensors++
		}
	}
	require.EqualValues(t, 43_232_353, parameters)
	require.Equal(t, 174, tensors)
}

// TestStateDictOfOptions compares names, shapes and order of all tensors for each of the
// options.
func TestStateDictOfOptions(t *testing.T) {
	var all map[string][][]any // name, shape
	golden.JSON(t, "b1_forward/state_dict_keys.json", &all)
	require.Len(t, all, len(options))
	for _, name := range optionNames() {
		want := all[name]
		state := nn.State(shapesOfKernelNet(options[name]))
		require.Len(t, state, len(want), name)
		for i, n := range state {
			require.Equal(t, want[i][0], n.Name, name)
			shape := want[i][1].([]any)
			have := nn.Shape(n.Tensor)
			require.Len(t, have, len(shape), n.Name)
			for j, d := range shape {
				require.EqualValues(t, d, have[j], "%s: %s", name, n.Name)
			}
		}
	}
}

func TestSummary(t *testing.T) {
	want, err := os.ReadFile(golden.Path(t, "golden/model_print.txt"))
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(string(want)), nn.Summary(shapesOfKernelNet(unet.Config{})))
}

// Tolerances relative to the largest logit.
const (
	// PyTorch's own float32 result differs from its float64 result by up to 9e-7. Here
	// sums are computed in another order, by vectors or one by one as a plain BLAS does;
	// errors up to 2.5e-6 were seen.
	tolerance32 = 1e-5
	// Float64 rounds by up to 1.1e-16 of a value. In about a hundred layers that sum
	// thousands of products in any order, errors of 1e-14 were seen.
	tolerance64 = 1e-13
	// Here up to a million numbers are added one by one, in PyTorch pairwise.
	toleranceSums = 5e-12
)

func TestForward(t *testing.T) {
	for _, name := range optionNames() {
		t.Run(name, func(t *testing.T) {
			want := golden.Tensors(t, "b1_forward/"+name+".safetensors")
			for _, run := range []struct {
				dtype     nn.DType
				tolerance float64
			}{{nn.Float, tolerance32}, {nn.Double, tolerance64}} {
				if run.dtype == nn.Float && name != "default" && name != "norm_batch" {
					continue // the same code runs in float64, where the tolerance is smaller
				}
				net := formulaNet(t, name, run.dtype, want)
				small, large := golden.Float64s(t, want, "logits.64.f64"), golden.Float64s(t, want, "logits.128.f64")
				worst := golden.Close(t, "64", forward(t, net, run.dtype, "input.64", 2, 3, 64, 64), small, run.tolerance)
				worst = max(worst, golden.Close(t, "128", forward(t, net, run.dtype, "input.128", 1, 3, 128, 128), large, run.tolerance))
				own := golden.Close(t, "torch", golden.Float64s(t, want, "logits.64.f32"), small, tolerance32)
				t.Logf("%v: worst error %.2g of the largest logit; torch's own float32 %.2g", run.dtype, worst, own)
			}
		})
	}
}

// A stage describes the output of one layer in golden/b1_forward/stages.json.
type stage struct {
	Shape                  []int64
	Mean, Std, AbsMax, Sum float64
	Index                  []int     `json:"sample_idx"`
	Sample                 []float64 // at Index
}

// TestStages compares the output of every layer with the reference, and Slow with
// Forward.
func TestStages(t *testing.T) {
	var all map[string]struct {
		Sizes map[string]struct{ Stages map[string]stage }
	}
	golden.JSON(t, "b1_forward/stages.json", &all)
	for _, name := range optionNames() {
		t.Run(name, func(t *testing.T) {
			shipped := golden.Tensors(t, "b1_forward/"+name+".safetensors")
			net := formulaNet(t, name, nn.Double, shipped)
			worst, n := 0.0, 0
			for size, shape := range map[string][]int64{"64": {2, 3, 64, 64}, "128": {1, 3, 128, 128}} {
				if size == "128" && name != "default" {
					continue // TestForward has the scores of that size
				}
				want := all[name].Sizes[size].Stages
				seen := 0
				var slow []float64
				scoped(t, func() {
					x := image(t, nn.Double, "input."+size, shape...)
					nn.NoGrad(func() {
						slow = values(t, unet.Slow(net, x, func(layer string, y torch.Tensor) {
							w, ok := want[layer]
							if !ok {
								t.Errorf("%s is no layer of the reference", layer)
								return
							}
							seen++
							worst = max(worst, w.compare(t, layer, y))
						}))
					})
				})
				require.Equal(t, len(want), seen)
				n += seen
				golden.Close(t, "folded", forward(t, net, nn.Double, "input."+size, shape...), slow, tolerance64)
			}
			t.Logf("%d outputs, worst error %.2g", n, worst)
		})
	}
}

// compare checks a few elements and the moments of y, and returns the largest error of
// the elements.
func (s stage) compare(t *testing.T, layer string, y torch.Tensor) float64 {
	t.Helper()
	require.Equal(t, s.Shape, nn.Shape(y), layer)
	v := values(t, y)
	sample := make([]float64, len(s.Index))
	for i, at := range s.Index {
		sample[i] = v[at]
	}
	m := momentsOf(v)
	worst := golden.Close(t, layer, sample, s.Sample, tolerance64)
	golden.Close(t, layer+" mean, deviation, largest", []float64{m.mean, m.std, m.absMax},
		[]float64{s.Mean, s.Std, s.AbsMax}, toleranceSums)
	// The tolerance of the sum is relative to the sum of the magnitudes.
	require.InDelta(t, s.Sum, m.sum, toleranceSums*m.sumAbs, layer)
	return worst
}

// TestStagesInFull compares all elements of 29 outputs with PyTorch's, in float32.
func TestStagesInFull(t *testing.T) {
	want := golden.Tensors(t, "b1_forward/default.safetensors")
	net := formulaNet(t, "default", nn.Float, nil)
	worst, n := 0.0, 0
	scoped(t, func() {
		x := image(t, nn.Float, "input.64", 2, 3, 64, 64)
		nn.NoGrad(func() {
			unet.Slow(net, x, func(layer string, y torch.Tensor) {
				if w, ok := want["stage.64."+layer+".f32"]; ok {
					v, err := w.Float64s()
					require.NoError(t, err)
					worst = max(worst, golden.Close(t, layer, values(t, y), v, tolerance32))
					n++
				}
			})
		})
	})
	require.Equal(t, 29, n)
	t.Logf("worst error %.2g", worst)
}

func TestOddSizes(t *testing.T) {
	want := golden.Tensors(t, "b1_forward/odd_sizes.safetensors")
	for _, test := range []struct {
		name   string
		option string
		sizes  map[string][2]int64
	}{
		{"kernel", "default", map[string][2]int64{"64x96": {64, 96}, "96x64": {96, 64}}},
		{"plain_unet", "no_hypercolumns", map[string][2]int64{"100x76": {100, 76}, "76x100": {76, 100}, "66x66": {66, 66}}},
	} {
		net := formulaNet(t, test.option, nn.Double, nil)
		for size, hw := range test.sizes {
			require.NoError(t, net.CheckSize(int(hw[0]), int(hw[1])))
			got := forward(t, net, nn.Double, "input."+size, 1, 3, hw[0], hw[1])
			worst := golden.Close(t, size, got, golden.Float64s(t, want, test.name+"."+size+".f64"), tolerance64)
			t.Logf("%s %s: %.2g", test.name, size, worst)
		}
	}
}

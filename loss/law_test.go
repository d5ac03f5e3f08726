package loss_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// with returns a configuration as another with some fields changed.
func with[P any](p P, change func(p *P)) P {
	change(&p)
	return p
}

// everyLoss are configurations of all losses that fit an output of that many
// classes, in all forms that their code tells apart.
func everyLoss(output data.Output, classes int) []loss.Parameters {
	channels := classes
	if output == data.Sigmoid {
		channels--
	}
	weights := make([]float64, channels)
	for i := range weights {
		weights[i] = 1 + float64(i)
	}
	ignore := new(255)
	all := []loss.Parameters{
		loss.DefaultDice(),
		with(loss.DefaultDice(), func(d *loss.Dice) { d.Smooth, d.CountAbsent, d.IgnoreIndex = 1, true, ignore }),
		with(loss.DefaultDice(), func(d *loss.Dice) { d.Log, d.PerImage, d.ClassWeights = true, true, weights }),
		with(loss.DefaultJaccard(), func(d *loss.Jaccard) { d.Classes = []int{classes - 1} }),
		with(loss.DefaultTversky(), func(d *loss.Tversky) { d.Alpha, d.Beta, d.Gamma, d.PerImage = 0.3, 0.7, 0.75, true }),
		loss.DefaultFocal(),
		loss.Focal{Gamma: 0, IgnoreIndex: ignore},
		loss.Focal{Gamma: 0.5, Normalized: true},
		loss.Focal{Gamma: 2, ReducedThreshold: new(0.5)},
		loss.Focal{Gamma: 2, OneVsRest: true, Alpha: new(0.25), ClassWeights: weights, IgnoreIndex: ignore},
		loss.Lovasz{},
		loss.Lovasz{PerImage: true, IgnoreIndex: ignore},
	}
	if output == data.Sigmoid {
		return append(all, loss.BCE{}, loss.BCE{PosWeight: weights, LabelSmoothing: 0.1, IgnoreIndex: ignore})
	}
	return append(all, loss.CrossEntropy{}, loss.CrossEntropy{ClassWeights: weights, LabelSmoothing: 0.1, IgnoreIndex: ignore},
		loss.Lovasz{CountAbsent: true})
}

// ignores says whether a configuration has an IgnoreIndex.
func ignores(p loss.Parameters) bool { return !reflect.ValueOf(p).FieldByName("IgnoreIndex").IsNil() }

var heads = []struct {
	output  data.Output
	classes int
}{{data.Sigmoid, 2}, {data.Sigmoid, 3}, {data.Sigmoid, 4}, {data.Softmax, 2}, {data.Softmax, 3}}

// each runs f for every loss and head, with its shape.
func each(t *testing.T, f func(t *testing.T, p loss.Parameters, l loss.Loss, classes int, shape []int64)) {
	for _, h := range heads {
		for _, p := range everyLoss(h.output, h.classes) {
			b, err := json.Marshal(p)
			require.NoError(t, err)
			l, err := p.New(h.output, h.classes)
			require.NoError(t, err)
			t.Run(fmt.Sprintf("%v %d %v %s", h.output, h.classes, l, b), func(t *testing.T) {
				channels := h.classes
				if h.output == data.Sigmoid {
					channels--
				}
				f(t, p, l, h.classes, []int64{2, int64(channels), 2, 3})
			})
		}
	}
}

// draw returns scores and targets of a shape.
func draw(purpose string, classes int, shape []int64) (scores []float64, targets []int64) {
	rng := random.New(1, purpose, uint64(classes))
	scores = make([]float64, shape[0]*shape[1]*shape[2]*shape[3])
	for i := range scores {
		scores[i] = rng.NormFloat64()
	}
	targets = make([]int64, shape[0]*shape[2]*shape[3])
	for i := range targets {
		targets[i] = rng.Int64N(int64(classes))
	}
	return scores, targets
}

// The gradient is that of finite differences.
func TestGradient(t *testing.T) {
	each(t, func(t *testing.T, p loss.Parameters, l loss.Loss, classes int, shape []int64) {
		scores, targets := draw("gradient", classes, shape)
		if ignores(p) {
			targets[1], targets[7] = 255, 255
		}
		_, grad := evaluate(t, l, scores, targets, shape)
		const h = 1e-6 // errors of the difference: about h² and 1e-16/h
		for i := range scores {
			moved := slices.Clone(scores)
			moved[i] += h
			above, _ := evaluate(t, l, moved, targets, shape)
			moved[i] -= 2 * h
			below, _ := evaluate(t, l, moved, targets, shape)
			require.InDelta(t, (above-below)/(2*h), grad[i], 1e-8, "score %d", i)
		}
	})
}

// Whatever the scores and targets, value and gradient are finite; scores of 16
// bits are computed in float32.
func TestFinite(t *testing.T) {
	each(t, func(t *testing.T, p loss.Parameters, l loss.Loss, classes int, shape []int64) {
		scores, random := draw("finite", classes, shape)
		n := len(random)
		targets := map[string][]int64{"random": random, "empty": make([]int64, n), "full": slices.Repeat([]int64{int64(classes - 1)}, n)}
		if ignores(p) {
			targets["ignored"] = slices.Repeat([]int64{255}, n)
		}
		extreme := make([]float64, len(scores))
		for i, v := range scores {
			extreme[i] = math.Copysign(80, v)
		}
		for name, y := range targets {
			for _, x := range [][]float64{scores, extreme, make([]float64, len(scores))} {
				want, _ := evaluate(t, l, x, y, shape)
				for _, dtype := range []nn.DType{nn.Float, nn.Half, nn.BFloat16} {
					value, grad := evaluateAs(t, dtype, l, x, y, shape)
					for _, v := range append(grad, value) {
						require.False(t, math.IsNaN(v) || math.IsInf(v, 0), "%s of %v: %v %v", name, dtype, value, grad)
					}
					if dtype == nn.Float {
						require.InDelta(t, want, value, 1e-5*max(1, math.Abs(want)), name)
					}
				}
				if name == "ignored" {
					require.InDelta(t, 0, want, 1e-20)
				}
			}
		}
	})
}

// Half-precision scores give the bits of the same scores in float32.
func TestHalfIsFloat32(t *testing.T) {
	scores, targets := draw("half", 3, []int64{2, 3, 2, 3})
	for i, v := range scores {
		scores[i] = math.Round(v*16) / 16 // exact in bfloat16
	}
	for _, p := range everyLoss(data.Softmax, 3) {
		l := loss.Must(p.New(data.Softmax, 3))
		want, _ := evaluateAs(t, nn.Float, l, scores, targets, []int64{2, 3, 2, 3})
		for _, dtype := range []nn.DType{nn.Half, nn.BFloat16} {
			got, _ := evaluateAs(t, dtype, l, scores, targets, []int64{2, 3, 2, 3})
			require.Equal(t, want, got)
		}
	}
}

// A pixel that is ignored has no gradient, and its score no influence.
func TestIgnored(t *testing.T) {
	each(t, func(t *testing.T, p loss.Parameters, l loss.Loss, classes int, shape []int64) {
		if !ignores(p) {
			t.Skip("nothing is ignored")
		}
		scores, targets := draw("ignored", classes, shape)
		targets[4] = 255
		want, grad := evaluate(t, l, scores, targets, shape)
		for c := range int(shape[1]) {
			require.Zero(t, grad[6*c+4])
			scores[6*c+4] += 3
		}
		got, _ := evaluate(t, l, scores, targets, shape)
		require.Equal(t, want, got)
	})
}

// Scores and targets that do not fit are an error that says both.
func TestRefuses(t *testing.T) {
	long := func(classes ...int64) torch.Tensor {
		y, err := nn.FromSlice(nn.CPU, classes, 1, 1, int64(len(classes)))
		require.NoError(t, err)
		return y
	}
	each(t, func(t *testing.T, p loss.Parameters, l loss.Loss, classes int, shape []int64) {
		c := shape[1]
		scores := func(w int64) torch.Tensor { return nn.Zeros(nn.CPU, nn.Float, 1, c, 1, w) }
		but := ""
		if ignores(p) {
			but = ", or 255 to be ignored"
		}
		for want, call := range map[string]func(){
			fmt.Sprintf("loss: scores (2, %d, 64, 64) for targets (2, 64, 32), wanted (N, %d, H, W) for (N, H, W)", c, c): func() {
				l.Forward(nn.Zeros(nn.CPU, nn.Float, 2, c, 64, 64), nn.Zeros(nn.CPU, nn.Long, 2, 64, 32))
			},
			fmt.Sprintf("loss: scores (1, %d, 1, 2) for targets (1, 1, 2), wanted (N, %d, H, W)", c+1, c): func() {
				l.Forward(nn.Zeros(nn.CPU, nn.Float, 1, c+1, 1, 2), long(0, 1))
			},
			fmt.Sprintf("loss: a target is class 7, wanted 0 to %d%s", classes-1, but):  func() { l.Forward(scores(2), long(0, 7)) },
			fmt.Sprintf("loss: a target is class -1, wanted 0 to %d%s", classes-1, but): func() { l.Forward(scores(2), long(0, -1)) },
			"loss: scores of int64, wanted a floating type": func() {
				l.Forward(nn.Zeros(nn.CPU, nn.Long, 1, c, 1, 2), long(0, 1))
			},
			"loss: targets of float32, wanted class indices of int64 or uint8": func() {
				l.Forward(scores(2), nn.Zeros(nn.CPU, nn.Float, 1, 1, 2))
			},
			"loss: an empty batch: targets (0, 4, 4)": func() {
				l.Forward(nn.Zeros(nn.CPU, nn.Float, 0, c, 4, 4), nn.Zeros(nn.CPU, nn.Long, 0, 4, 4))
			},
		} {
			err := nn.Try(call)
			require.Error(t, err, want)
			require.Contains(t, err.Error(), want)
			require.NotContains(t, err.Error(), "libtorch")
		}
		if !ignores(p) {
			require.ErrorContains(t, nn.Try(func() { l.Forward(scores(2), long(0, 255)) }), "class 255")
		}
		// Targets of uint8 are the same classes.
		require.NoError(t, nn.Try(func() {
			y := long(0, 1)
			a, err := nn.Item(l.Forward(scores(2), y))
			require.NoError(t, err)
			b, err := nn.Item(l.Forward(scores(2), nn.To(y, nn.CPU, nn.Byte)))
			require.NoError(t, err)
			require.Equal(t, a, b)
		}))
	})
}

// A sum is the weighted sum of its terms; also of a user's own.
func TestSum(t *testing.T) {
	shape := []int64{2, 3, 2, 3}
	scores, targets := draw("sum", 3, shape)
	ce, dice := loss.Must(loss.CrossEntropy{}.New(data.Softmax, 3)), loss.Must(loss.DefaultDice().New(data.Softmax, 3))
	square := loss.Func{Name: "square", F: func(x, _ torch.Tensor) torch.Tensor { return nn.Mean(nn.Mul(x, x)) }}
	sum := loss.Sum{{Weight: 0.5, Loss: ce}, {Weight: 1, Loss: dice}, {Weight: 0.1, Loss: square}}
	require.Equal(t, "0.5*cross_entropy + dice + 0.1*square", sum.String())
	got, gotGrad := evaluate(t, sum, scores, targets, shape)
	want, wantGrad := 0.0, make([]float64, len(scores))
	for _, term := range sum {
		v, g := evaluate(t, term.Loss, scores, targets, shape)
		want += term.Weight * v
		for i := range g {
			wantGrad[i] += term.Weight * g[i]
		}
	}
	require.InDelta(t, want, got, 1e-15)
	require.InDeltaSlice(t, wantGrad, gotGrad, 1e-15)
	x := nn.Zeros(nn.CPU, nn.Float, 1, 2, 1, 1)
	require.EqualError(t, nn.Try(func() { loss.Sum{}.Forward(x, x) }), "loss: a sum of no losses")
}

package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// randomParams returns parameters of the given shapes with values around 0.
func randomParams(tb testing.TB, dtype DType, shapes ...[]int64) []Named {
	tb.Helper()
	in := NewInit(CPU, 7)
	in.DType = dtype
	params := make([]Named, len(shapes))
	for i, shape := range shapes {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		params[i] = Named{Name: fmt.Sprintf("p%d", i), Tensor: in.param(in.normal(n, 0.1), shape...)}
	}
	return params
}

// backward adds scale*p² to the gradient of each parameter p: the gradient of
// scale/3 times the sum of p³.
func backward(tb testing.TB, params []Named, scale float64) {
	tb.Helper()
	require.NoError(tb, Try(func() {
		Scope(func() {
			for _, p := range params {
				x := p.Tensor
				must(Backward(MulScalar(Sum(Mul(Mul(x, x), x)), scale/3)))
			}
		})
	}))
}

// TestAdamPaper compares Step with the formulas of the paper, computed number by number:
// the operators of libtorch, which float64 takes, and the loop for float32.
func TestAdamPaper(t *testing.T) {
	t.Run("float64", func(t *testing.T) { testAdamPaper(t, Double, 1e-15) }) // twelve steps, each with a few roundings of values around 0.1
	t.Run("float32", func(t *testing.T) { testAdamPaper(t, Float, 3e-7) })
}

func testAdamPaper(t *testing.T, dtype DType, tolerance float64) {
	for _, c := range []OptimizerConfig{
		DefaultAdam(),
		{Beta2: 0.99, Eps: 1e-8, Epsilon: EpsilonBefore},
		{Beta2: 0.99, Eps: 1e-8, Decay: DecayL2},
		{Beta2: 0.9, Eps: 1e-3, Epsilon: EpsilonBefore, Decay: DecayL2},
		{Beta2: 0, Eps: 1e-3},
	} {
		t.Run(c.String(), func(t *testing.T) {
			params := randomParams(t, dtype, []int64{3, 5, 2}, []int64{7})
			adam, err := c.New([][]Named{params[:1], params[1:]})
			require.NoError(t, err)
			var want, mean, sq [2][]float64
			for i, p := range params {
				want[i], err = Slice[float64](p.Tensor)
				require.NoError(t, err)
				mean[i], sq[i] = make([]float64, len(want[i])), make([]float64, len(want[i]))
			}
			rng := rand.New(rand.NewPCG(1, 2))
			for step := 1; step <= 12; step++ {
				scale := rng.NormFloat64()
				require.NoError(t, ZeroGrad(params))
				backward(t, params, scale)
				hyper := []Hyper{{Rate: 1e-2 * rng.Float64(), Momentum: 0.85 + 0.1*rng.Float64(), WeightDecay: 0.1}, {Rate: 1e-3, Momentum: 0.9}}
				require.NoError(t, adam.Step(hyper))
				for i, h := range hyper {
					for j, p := range want[i] {
						g := scale * p * p
						if c.Decay == DecayL2 {
							g += h.WeightDecay * p
						} else {
							p -= h.Rate * h.WeightDecay * p
						}
						m := h.Momentum*mean[i][j] + (1-h.Momentum)*g
						v := c.Beta2*sq[i][j] + (1-c.Beta2)*g*g
						mean[i][j], sq[i][j] = m, v
						c1, c2 := 1-math.Pow(h.Momentum, float64(step)), 1-math.Pow(c.Beta2, float64(step))
						if c.Epsilon == EpsilonBefore {
							p -= h.Rate * math.Sqrt(c2) / c1 * m / (math.Sqrt(v) + c.Eps)
						} else {
							p -= h.Rate * (m / c1) / (math.Sqrt(v/c2) + c.Eps)
						}
						want[i][j] = p
					}
				}
			}
			for i, p := range params {
				got, err := Slice[float64](p.Tensor)
				require.NoError(t, err)
				require.InDeltaSlice(t, want[i], got, tolerance)
			}
		})
	}
}

// A parameter that is frozen or has no gradient is not changed, and the step does not
// count for it.
func TestAdamSkips(t *testing.T) {
	params := randomParams(t, Double, []int64{2}, []int64{2}, []int64{2})
	adam, err := DefaultAdam().New([][]Named{params})
	require.NoError(t, err)
	values := func(i int) []float64 {
		v, err := Slice[float64](params[i].Tensor)
		require.NoError(t, err)
		return v
	}
	before := [][]float64{values(0), values(1), values(2)}
	backward(t, params[:2], 1)
	SetRequiresGrad(params[1].Tensor, false)
	h := []Hyper{{Rate: 0.1, Momentum: 0.9}}
	require.NoError(t, adam.Step(h))
	require.NotEqual(t, before[0], values(0))
	require.Equal(t, before[1], values(1))
	require.Equal(t, before[2], values(2))

	// Adam's first step has the size of the rate, whatever the gradient. It would have
	// another size if the step before had counted for p2.
	backward(t, params[2:], 1)
	require.NoError(t, adam.Step(h))
	for i, v := range values(2) {
		require.InDelta(t, before[2][i]-0.1, v, 1e-6)
	}
	require.ErrorContains(t, adam.Step(nil), "0 groups of values for 1 groups of parameters")
}

// Clipping multiplies all gradients by one factor, so that their norm is the limit.
// Gradients whose norm is below the limit do not change.
func TestClipGradNorm(t *testing.T) {
	params := randomParams(t, Double, []int64{3}, []int64{2, 2})
	norm, err := ClipGradNorm(params, 1)
	require.NoError(t, err)
	require.Zero(t, norm, "no gradient, no norm")
	CopyInto(params[0].Tensor, Full(CPU, Double, 1, 3))
	CopyInto(params[1].Tensor, Full(CPU, Double, 2, 2, 2))
	backward(t, params, 1) // the gradients are three times 1 and four times 4
	norm, err = ClipGradNorm(params, 100)
	require.NoError(t, err)
	require.InEpsilon(t, 8.18535277187245, norm, 1e-15) // sqrt(3 + 64)
	norm, err = ClipGradNorm(params, 0.5)
	require.NoError(t, err)
	require.InEpsilon(t, 8.18535277187245, norm, 1e-15)
	norm, err = GradNorm(params)
	require.NoError(t, err)
	require.InEpsilon(t, 0.5, norm, 1e-6/8) // the factor is 0.5/(norm+1e-6)
	require.NoError(t, DivGrad(params, 4))
	norm, err = GradNorm(params)
	require.NoError(t, err)
	require.InEpsilon(t, 0.125, norm, 1e-6/8)
	require.NoError(t, ZeroGrad(params))
	norm, err = GradNorm(params)
	require.NoError(t, err)
	require.Zero(t, norm)
	_, ok := Grad(params[0].Tensor)
	require.True(t, ok)
	require.NoError(t, DropGrad(params))
	_, ok = Grad(params[0].Tensor)
	require.False(t, ok)
}

// layers returns about as many numbers, in as many tensors, as the notebook's network
// has, with gradients.
func layers(tb testing.TB) []Named {
	shapes := make([][]int64, 174)
	for i := range shapes {
		shapes[i] = []int64{43_232_353 / 174}
	}
	params := randomParams(tb, Float, shapes...)
	backward(tb, params, 1)
	return params
}

func BenchmarkAdam(b *testing.B) {
	params := layers(b)
	adam, err := DefaultAdam().New([][]Named{params})
	require.NoError(b, err)
	for b.Loop() {
		require.NoError(b, adam.Step([]Hyper{{Rate: 1e-5, Momentum: 0.9, WeightDecay: 0.01}}))
	}
}

func BenchmarkClipGradNorm(b *testing.B) {
	params := layers(b)
	for b.Loop() {
		_, err := ClipGradNorm(params, 1e9)
		require.NoError(b, err)
	}
}

// On the CPU, where the program knows the gradients, no step is left out.
func TestStepUnless(t *testing.T) {
	params := randomParams(t, Float, []int64{2})
	o, err := DefaultAdam().New([][]Named{params})
	require.NoError(t, err)
	s, ok := o.(Skipper)
	require.True(t, ok)
	require.False(t, s.CanSkip())
	require.ErrorContains(t, s.StepUnless(Full(CPU, Float, 0, 1), []Hyper{{Rate: 1, Momentum: 0.9}}), "cannot skip steps")
}

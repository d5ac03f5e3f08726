package nn

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/stretchr/testify/require"
)

// setGrads gives params the values as gradients; a nil slice leaves a parameter without
// one.
func setGrads(t *testing.T, params []Named, values [][]float64) {
	t.Helper()
	require.NoError(t, DropGrad(params))
	for i, v := range values {
		if v == nil {
			continue
		}
		// The gradient of Σ v p is v.
		require.NoError(t, Try(func() {
			by, err := FromSlice(CPU, v, int64(len(v)))
			require.NoError(t, err)
			must(Backward(Sum(Mul(params[i].Tensor, by))))
		}))
	}
}

// TestSGDGolden compares six steps with those of torch.optim.SGD: testdata/sgd.py.
func TestSGDGolden(t *testing.T) {
	var want struct {
		Start   [][]float64
		Rates   []float64
		Momenta [][]float64
		Grads   [][][]float64
		Runs    []struct {
			Decay     float64
			Nesterov  bool
			Dampening float64
			End       [][]float64
		}
	}
	b, err := os.ReadFile("testdata/sgd.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &want))
	require.NotEmpty(t, want.Runs)
	for _, r := range want.Runs {
		c := DefaultSGD()
		c.Nesterov, c.Dampening = r.Nesterov, r.Dampening
		t.Run(c.String(), func(t *testing.T) {
			params := parametersOf(t, want.Start)
			sgd, err := c.New([][]Named{params[:2], params[2:]})
			require.NoError(t, err)
			for i, rate := range want.Rates {
				grads := append([][]float64(nil), want.Grads[i]...)
				if i == 0 {
					grads[1] = nil
				}
				setGrads(t, params, grads)
				var hyper []Hyper
				for _, m := range want.Momenta[i] {
					hyper = append(hyper, Hyper{Rate: rate, Momentum: m, WeightDecay: r.Decay})
				}
				require.NoError(t, sgd.Step(hyper))
			}
			for i, p := range params {
				got, err := Slice[float64](p.Tensor)
				require.NoError(t, err)
				require.InDeltaSlice(t, r.End[i], got, 1e-15) // each of six steps rounds a few times; values are around 1
			}
		})
	}
}

func parametersOf(t *testing.T, values [][]float64) []Named {
	t.Helper()
	params := make([]Named, len(values))
	for i, v := range values {
		p, err := FromSlice(CPU, v, int64(len(v)))
		require.NoError(t, err)
		SetRequiresGrad(p, true)
		params[i] = Named{Name: string(rune('a' + i)), Tensor: p}
	}
	return params
}

// Decoupled decay shrinks the parameter before the update and does not change the
// gradient.
func TestSGDDecoupled(t *testing.T) {
	c := DefaultSGD()
	c.Decay = DecayDecoupled
	params := parametersOf(t, [][]float64{{2, -4}})
	sgd, err := c.New([][]Named{params})
	require.NoError(t, err)
	setGrads(t, params, [][]float64{{1, 0}})
	require.NoError(t, sgd.Step([]Hyper{{Rate: 0.5, Momentum: 0.9, WeightDecay: 0.5}}))
	got, err := Slice[float64](params[0].Tensor)
	require.NoError(t, err)
	require.Equal(t, []float64{2*0.75 - 0.5, -4 * 0.75}, got)
}

var optimizerConfigs = map[string]OptimizerConfig{
	"adam":     DefaultAdam(),
	"kernel":   KernelAdam(),
	"adam_l2":  {Kind: Adam, Beta2: 0, Eps: 1e-3, Decay: DecayL2},
	"sgd":      DefaultSGD(),
	"nesterov": {Kind: SGD, Nesterov: true},
	"dampened": {Kind: SGD, Dampening: 0.5, DecayFrozenBias: true},
}

// An optimizer that loads the state of another one from a file makes exactly the same
// further steps, also where parameters have made different numbers of steps.
func TestOptimizerState(t *testing.T) {
	for name, c := range optimizerConfigs {
		for _, dtype := range []DType{Float, Double, BFloat16} {
			t.Run(name+" "+dtype.String(), func(t *testing.T) {
				params := randomParams(t, dtype, []int64{3, 5}, []int64{7}, []int64{2})
				groups := [][]Named{params[:2], params[2:]}
				o, err := c.New(groups)
				require.NoError(t, err)
				steps := func(o Optimizer, from, to int) {
					for i := from; i < to; i++ {
						require.NoError(t, DropGrad(params))
						with := params
						if i == 1 {
							with = params[1:]
						}
						backward(t, with, float64(i+1))
						h := Hyper{Rate: 1e-2 / float64(i+1), Momentum: 0.9 - 0.01*float64(i), WeightDecay: 0.1}
						require.NoError(t, o.Step([]Hyper{h, {Rate: 0.1, Momentum: 0.5 * float64(i%2)}}))
					}
				}
				snapshot := func() (values [][]float64) {
					for _, p := range params {
						v, err := Slice[float64](p.Tensor)
						require.NoError(t, err)
						values = append(values, v)
					}
					return values
				}
				steps(o, 0, 3)
				state, err := o.State()
				require.NoError(t, err)
				middle := snapshot()
				steps(o, 3, 5)
				want := snapshot()
				require.NotEqual(t, middle, want)

				for i, v := range middle {
					x, err := FromSlice(CPU, v, Shape(params[i].Tensor)...)
					require.NoError(t, err)
					CopyInto(params[i].Tensor, x)
				}
				fresh, err := c.New(groups)
				require.NoError(t, err)
				require.NoError(t, fresh.LoadState(throughFile(t, state)))
				again, err := fresh.State()
				require.NoError(t, err)
				require.Equal(t, state, again)
				steps(fresh, 3, 5)
				require.Equal(t, want, snapshot())
				end, err := o.State()
				require.NoError(t, err)
				freshEnd, err := fresh.State()
				require.NoError(t, err)
				require.Equal(t, end, freshEnd)
			})
		}
	}
}

func throughFile(t *testing.T, f *checkpoint.File) *checkpoint.File {
	t.Helper()
	path := t.TempDir() + "/state.safetensors"
	require.NoError(t, checkpoint.SaveSafetensors(path, f))
	read, err := checkpoint.OpenSafetensors(path)
	require.NoError(t, err)
	return read
}

// A state that does not fit changes nothing; the error lists all differences.
func TestOptimizerStateMisfits(t *testing.T) {
	make1 := func(c OptimizerConfig, params []Named) Optimizer {
		o, err := c.New([][]Named{params})
		require.NoError(t, err)
		backward(t, params, 1)
		require.NoError(t, o.Step([]Hyper{{Rate: 0.1, Momentum: 0.9}}))
		return o
	}
	stateOf := func(c OptimizerConfig, params []Named) *checkpoint.File {
		f, err := make1(c, params).State()
		require.NoError(t, err)
		return f
	}
	params := randomParams(t, Float, []int64{3}, []int64{2, 2})
	other := randomParams(t, Float, []int64{3}, []int64{4})
	other[0].Name = "other"
	negative := stateOf(DefaultAdam(), params)
	negative.Tensors[0] = checkpoint.FromInt64(negative.Tensors[0].Name, []int64{-1})
	for want, state := range map[string]*checkpoint.File{
		"nn: a state of sgd for an optimizer of adam": stateOf(DefaultSGD(), params),
		"nn: the state does not fit the optimizer adam(beta2=0.99, eps=1e-08):\n" +
			"3 missing: adam.step.p0, adam.exp_avg.p0, adam.exp_avg_sq.p0\n" +
			"3 extra: adam.exp_avg.other, adam.exp_avg_sq.other, adam.step.other\n" +
			"2 wrong: adam.exp_avg.p1 is F32 [4] in 16 bytes, wanted F32 [2 2] in 16, adam.exp_avg_sq.p1 is F32 [4] in 16 bytes, wanted F32 [2 2] in 16": stateOf(DefaultAdam(), other),
		"1 wrong: adam.step.p0 is -1": negative,
		"wanted F32 [3] in 12":        stateOf(DefaultAdam(), randomParams(t, Double, []int64{3}, []int64{2, 2})),
		"6 missing":                   {},
	} {
		o := make1(DefaultAdam(), params)
		before, err := o.State()
		require.NoError(t, err)
		require.ErrorContains(t, o.LoadState(state), want)
		after, err := o.State()
		require.NoError(t, err)
		require.Equal(t, before, after)
	}
}

func TestOptimizerConfigJSON(t *testing.T) {
	for name, c := range optimizerConfigs {
		b, err := json.Marshal(c)
		require.NoError(t, err, name)
		var back OptimizerConfig
		require.NoError(t, json.Unmarshal(b, &back), "%s", b)
		require.Equal(t, c, back, "%s", b)
	}
	var c OptimizerConfig
	require.NoError(t, json.Unmarshal([]byte(`{"eps": 1e-6}`), &c))
	require.Equal(t, OptimizerConfig{Kind: Adam, Beta2: 0.99, Eps: 1e-6}, c, "what is missing has its default")
	require.NoError(t, json.Unmarshal([]byte(`{"kind": "sgd"}`), &c))
	require.Equal(t, DefaultSGD(), c)
	for text, want := range map[string]string{
		`{"kind": "adamw"}`:               `nn: optimizer "adamw"; wanted adam or sgd`,
		`{"kind": "sgd", "beta2": 0.9}`:   `nn: sgd: unknown field "beta2", wanted kind, nesterov, dampening, decay, decay_frozen_bias`,
		`{"bata2": 0.9}`:                  `nn: adam: unknown field "bata2", wanted kind, beta2, eps, epsilon, decay, decay_frozen_bias`,
		`{"epsilon": "between"}`:          `nn: epsilon "between"; wanted after or before`,
		`{"decay": "none"}`:               `nn: decay "none"; wanted decoupled or l2`,
		`{"eps": 0}`:                      "nn: adam with eps 0, wanted more than 0, such as 1e-8",
		`{"beta2": 1}`:                    "nn: adam with beta2 1, wanted at least 0 and less than 1, such as 0.99",
		`{"kind": "sgd", "dampening": 2}`: "nn: sgd with dampening 2, wanted 0 to 1",
		`{"kind": "sgd", "dampening": 1, "nesterov": true}`: "nn: sgd with nesterov and dampening 1, wanted dampening 0",
	} {
		require.ErrorContains(t, json.Unmarshal([]byte(text), &c), want, text)
	}
	require.Equal(t, DefaultSGD(), c, "an error changes nothing")
	for want, c := range map[string]OptimizerConfig{
		"nn: optimizer 7; wanted adam or sgd": {Kind: 7},
		"nn: adam with nesterov":              {Beta2: 0.9, Eps: 1, Nesterov: true},
		"nn: sgd with beta2":                  {Kind: SGD, Beta2: 0.9},
	} {
		_, err := c.New(nil)
		require.ErrorContains(t, err, want)
		_, err = json.Marshal(c)
		require.ErrorContains(t, err, want)
	}
	params := parametersOf(t, [][]float64{{1}, {2}})
	params[1].Name = "a"
	_, err := DefaultAdam().New([][]Named{params})
	require.EqualError(t, err, `nn: an optimizer of two parameters called "a"`)
}

package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite testdata from ../shared/golden")

// An event is one line of a training run's protocol.
type event struct {
	Kind     string    // "loss", "clip" or "step", or "valid" after an epoch's last step
	Value    float64   // for "loss" and "valid" the loss, for "clip" the norm before clipping, for "step" the divisor of the gradient
	Norm     float64   // norm of the divided gradient of a step; 0 if it is not known
	Rates    []float64 // learning rates of a loss or a step
	Momentum float64
	EpochEnd bool // whether a step comes after the last batch of an epoch
}

// fastaiEvent is an event as golden/scripts/b3.py and b3c.py write it.
type fastaiEvent struct {
	Ev         string
	Train      bool
	Loss       float64
	NormBefore float64 `json:"norm_before"`
	LR         []float64
	Mom        momentum
	At         string  // the time of a step, only in b3.py: "batch" or "epoch_end"
	AccBatches float64 `json:"acc_batches"`
	Acc        float64 // AccBatches in b3c.py
	GradNorm   float64 `json:"grad_norm_after_div"`
	Params     map[string]struct{ Norm, Sum, First, Last float64 }
}

// momentum is the momentum of all groups. b3.py writes a list of equal numbers.
type momentum float64

func (m *momentum) UnmarshalJSON(b []byte) error {
	var list []float64
	if bytes.HasPrefix(b, []byte("[")) {
		err := json.Unmarshal(b, &list)
		*m = momentum(list[0])
		return err
	}
	return json.Unmarshal(b, (*float64)(m))
}

// protocol returns the events of a run of fastai. In fastai, the step at the end of an epoch
// comes after the validation; here the validation is reported after that step.
func protocol(golden []fastaiEvent) []event {
	var events []event
	var begun fastaiEvent // the current batch
	var valid *event
	training := false
	for _, e := range golden {
		switch e.Ev {
		case "batch", "batch_begin":
			begun, training = e, e.Train
		case "loss":
			events = append(events, event{Kind: "loss", Value: e.Loss, Rates: begun.LR, Momentum: float64(begun.Mom)})
		case "clip":
			events = append(events, event{Kind: "clip", Value: e.NormBefore})
		case "valid":
			training = false
			valid = &event{Kind: "valid", Value: e.Loss}
		case "real_step":
			s := event{Kind: "step", Value: e.AccBatches + e.Acc, Norm: e.GradNorm, Rates: e.LR, Momentum: float64(e.Mom)}
			s.EpochEnd = e.At == "epoch_end" || e.At == "" && !training
			if e.LR == nil && training { // b3c.py writes the rates only for the batch
				s.Rates, s.Momentum = begun.LR, float64(begun.Mom)
			}
			events = append(events, s)
			if valid != nil {
				events = append(events, *valid)
				valid = nil
			}
		}
	}
	return events
}

// follow trains as golden/scripts/b3.py does, for two epochs frozen and two epochs full, and
// returns the events. It calls atStep after each step.
func follow(t *testing.T, model train.Model, cfg train.Config, rate float64, source, valid feed.Source, atStep func(step int)) []event {
	t.Helper()
	var events []event
	var step []event // the step of the current batch, because BatchEnd comes after StepEnd
	steps := 0
	hook := train.Hook{
		StepEnd: func(s train.StepInfo) error {
			norm, err := nn.GradNorm(nn.Parameters(model))
			require.NoError(t, err)
			e := event{Kind: "step", Value: s.Divisor, Norm: norm, Rates: s.Rates, Momentum: s.Momentum, EpochEnd: s.EpochEnd}
			if s.EpochEnd {
				events = append(events, e)
			} else {
				step = append(step, e)
			}
			atStep(steps)
			steps++
			return nil
		},
		BatchEnd: func(b train.BatchInfo) error {
			events = append(events, event{Kind: "loss", Value: b.Loss, Rates: b.Rates, Momentum: b.Momentum})
			if !math.IsNaN(b.Norm) {
				events = append(events, event{Kind: "clip", Value: b.Norm})
			}
			events = append(events, step...)
			step = nil
			return nil
		},
		EpochEnd: func(e metric.Epoch) error {
			if v := e.Value(metric.ValidLoss); !math.IsNaN(v) {
				events = append(events, event{Kind: "valid", Value: v})
			}
			return nil
		},
	}
	rates, err := train.EvenRates(rate/80, rate/2, 3)
	require.NoError(t, err)
	_, err = learner(t, model, cfg, hook).Fit(context.Background(), source, valid,
		train.Phase{Name: "frozen", Epochs: 2, Rates: train.SameRates(rate, 3), Frozen: true},
		train.Phase{Name: "full", Epochs: 2, Rates: rates})
	require.NoError(t, err)
	return events
}

// compare fails the test unless got and want have the same events. Values and norms of event
// i may differ by the relative error tolerance(i), rates and momenta by the rounding of
// float64; kinds and divisors must be equal. It returns the largest error.
func compare(t *testing.T, got, want []event, tolerance func(i int) float64) float64 {
	t.Helper()
	worst := 0.0
	near := func(i int, what string, got, want float64) {
		t.Helper()
		d := math.Abs(got - want)
		if want != 0 {
			d /= math.Abs(want)
		}
		worst = max(worst, d)
		if !(d <= tolerance(i)) {
			t.Errorf("event %d: %s is %v, want %v: error %.3g, tolerance %.3g", i, what, got, want, d, tolerance(i))
		}
	}
	for i := range min(len(got), len(want)) {
		g, w := got[i], want[i]
		require.Equal(t, []any{w.Kind, w.EpochEnd}, []any{g.Kind, g.EpochEnd}, "event %d", i)
		if w.Kind == "step" {
			require.Equal(t, w.Value, g.Value, "event %d: divisor", i)
		} else {
			near(i, w.Kind, g.Value, w.Value)
		}
		if w.Norm != 0 {
			near(i, "norm of the gradient", g.Norm, w.Norm)
		}
		if w.Rates != nil {
			require.InEpsilonSlice(t, w.Rates, g.Rates, 1e-14, "event %d", i)
			require.InEpsilon(t, w.Momentum, g.Momentum, 1e-14, "event %d", i)
		}
	}
	require.Len(t, got, len(want))
	return worst
}

// withinFloat64 is the tolerance for another order of sums in float64. A batch norm sums up
// to 128 numbers: about sqrt(128) = 11 roundings of 1.1e-16, which over 44 batches makes
// 8e-15. The tolerance is six times that; errors of 1e-15 were seen.
const withinFloat64 = 5e-14

func within(tol float64) func(int) float64 { return func(int) float64 { return tol } }

// kernelVariant has the options of a run of golden/scripts/b3.py.
type kernelVariant struct {
	batches, accumulate int
	clip                float64
	noValid, torch11    bool
	dtype               nn.DType
}

var kernelVariants = map[string]kernelVariant{
	"kernel11":              {batches: 11, accumulate: 4, clip: 1},
	"kernel11_noclip":       {batches: 11, accumulate: 4},
	"kernel11_adam_torch11": {batches: 11, accumulate: 4, clip: 1, torch11: true},
	"kernel11_f32":          {batches: 11, accumulate: 4, clip: 1, dtype: nn.Float},
	"rem0_12batches":        {batches: 12, accumulate: 4, clip: 1},
	"nstep1":                {batches: 11, accumulate: 1, clip: 1},
	"nstep2":                {batches: 11, accumulate: 2, clip: 1},
	"nstep8":                {batches: 11, accumulate: 8, clip: 1},
	"noval11":               {batches: 11, accumulate: 4, clip: 1, noValid: true},
	"noval12":               {batches: 12, accumulate: 4, clip: 1, noValid: true},
	"clip_tiny":             {batches: 11, accumulate: 4, clip: 0.05},
}

// run trains model with the options of a variant and returns the events.
func (v kernelVariant) run(t *testing.T, model train.Model, atStep func(step int)) []event {
	t.Helper()
	cfg := notebook(v.accumulate, v.clip)
	cfg.BatchNorm = 0.025
	if !v.torch11 {
		cfg.Optimizer.Epsilon = nn.EpsilonAfter
	}
	var valid feed.Source
	if !v.noValid {
		valid = formulaBatches("b3.valid", 3, 2, 8, 0.3)
	}
	events := follow(t, model, cfg, 1e-2, formulaBatches("b3.train", v.batches, 2, 8, 0.3), valid, atStep)
	kept := events[:0]
	for _, e := range events {
		if e.Kind != "valid" { // b3.py does not write these events
			kept = append(kept, e)
		}
	}
	return kept
}

// TestKernelTrajectories compares every variant of golden/b3_optim with fastai's training
// loop, event by event: losses, rates, momenta, norms before clipping and of the divided
// gradients, divisors; all parameters after each step; and the running statistics at the
// end.
func TestKernelTrajectories(t *testing.T) {
	var all map[string]struct{ Events []fastaiEvent }
	golden.JSON(t, "b3_optim/events.json", &all)
	for name, v := range kernelVariants {
		t.Run(name, func(t *testing.T) {
			// Only the order of sums differs.
			tol := withinFloat64
			if v.dtype == nn.Float {
				tol = 5e-6 // as withinFloat64, with roundings of 6e-8; 2.4e-7 was seen
			} else {
				v.dtype = nn.Double
			}
			// The gradient of a bias before a batch norm is nothing but rounding noise.
			// Adam divides it by its own size plus an eps of 1e-8, so that it is scaled up
			// by as much as 1e8. The running mean of the norm follows the bias, so that
			// nothing else depends on it. In float64, noise of 1e-17 changes the bias by
			// 1e-17 * 1e8 * rate 1e-2 = 1e-11 in each of some twenty steps; 7e-11 was seen.
			// In float32, the noise makes steps as large as the rate, some of which cancel;
			// 1e-2 was seen.
			noise := 1e-8
			if v.dtype == nn.Float {
				noise = 1e-1
			}
			want := golden.Tensors(t, "b3_optim/"+name+".safetensors")
			worst, worstNoise, tensors := 0.0, 0.0, 0
			model := newTiny(t, v.dtype)
			check := func(key string, n nn.Named) {
				got, err := nn.Slice[float64](n.Tensor)
				require.NoError(t, err)
				tensors++
				if n.Name == "b.0.bias" || n.Name == "b.1.running_mean" {
					worstNoise = max(worstNoise, golden.Close(t, key, got, golden.Float64s(t, want, key), noise))
					return
				}
				worst = max(worst, golden.Close(t, key, got, golden.Float64s(t, want, key), tol))
			}
			events := v.run(t, model, func(step int) {
				for _, p := range nn.Parameters(model) {
					check(fmt.Sprintf("step%02d.%s", step, p.Name), p)
				}
			})
			for _, n := range nn.State(model) {
				check("final."+n.Name, n)
			}
			require.Len(t, want, tensors, "every golden tensor was compared")
			worstEvent := compare(t, events, protocol(all[name].Events), within(tol))
			t.Logf("%d events, worst error %.2g; %d tensors, %.2g, beside noise %.2g", len(events), worstEvent, tensors, worst, worstNoise)
		})
	}
}

// TestKernelExtract is a part of TestKernelTrajectories that does not need ../shared.
// testdata/kernel11.json has the events of this variant from fastai 1.0.54 on PyTorch 1.13.1
// (golden/scripts/b3.py). It is written by
//
//	go test ./train -run TestKernelExtract -update
func TestKernelExtract(t *testing.T) {
	const file = "testdata/kernel11.json"
	if *update {
		var all map[string]struct{ Events []fastaiEvent }
		golden.JSON(t, "b3_optim/events.json", &all)
		b, err := json.Marshal(protocol(all["kernel11"].Events))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, append(bytes.ReplaceAll(b, []byte("},"), []byte("},\n")), '\n'), 0o644))
	}
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var want []event
	require.NoError(t, json.Unmarshal(b, &want))
	v := kernelVariants["kernel11"]
	v.dtype = nn.Double
	compare(t, v.run(t, newTiny(t, nn.Double), func(int) {}), want, within(withinFloat64))
}

// In a frozen phase, the kernel recipe applies weight decay to frozen biases, as fastai
// does; the default recipe does not.
func TestFrozenBias(t *testing.T) {
	for name, moves := range map[string]bool{"kernel": true, "default": false} {
		cfg := mean(2, 0)
		if moves {
			cfg = notebook(2, 0)
		}
		model := newTiny(t, nn.Double)
		before := state(t, model)
		_, err := learner(t, model, cfg).Fit(context.Background(), formulaBatches("b3.train", 4, 2, 8, 0.3), nil,
			train.Phase{Name: "frozen", Epochs: 1, Rates: train.SameRates(1e-2, 3), Frozen: true})
		require.NoError(t, err)
		var moved []string
		for i, n := range state(t, model).Tensors {
			if !bytes.Equal(n.Data, before.Tensors[i].Data) && !nn.State(model)[i].Buffer {
				moved = append(moved, n.Name)
			}
		}
		want := []string{"a.1.weight", "a.1.bias", "b.1.weight", "b.1.bias", "c.0.weight", "c.0.bias"}
		if moves {
			want = []string{"a.1.weight", "a.1.bias", "b.0.bias", "b.1.weight", "b.1.bias", "c.0.weight", "c.0.bias"}
		}
		require.Equal(t, want, moved, name)
	}
}

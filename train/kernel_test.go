package train_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

// event is one entry of golden/b3_optim/events.json.
type event struct {
	Ev         string
	Train      bool
	Loss       float64
	NormBefore float64 `json:"norm_before"`
	LR         []float64
	Mom        []float64
	AccBatches float64 `json:"acc_batches"`
	At         string
	Iteration  int
}

// TestKernelTrajectories follows fastai's training loop through every variant of
// golden/b3_optim, event by event: losses, rates, norms, divisors, and all
// parameters after each step.
func TestKernelTrajectories(t *testing.T) {
	variants := map[string]struct {
		batches, accumulate int
		clip                float64
		noValid, torch11    bool
		dtype               nn.DType
	}{
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
	var all map[string]struct{ Events []event }
	golden.JSON(t, "b3_optim/events.json", &all)
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			// float64 leaves only the order of sums; float32 is as far from
			// float64 as torch's own run (see golden's kernel11_f32).
			dtype, tol := nn.Double, 1e-12
			if v.dtype == nn.Float {
				dtype, tol = nn.Float, 2e-6
			}
			epsilon := nn.EpsilonAfter
			if v.torch11 {
				epsilon = nn.EpsilonBefore
			}
			want := golden.Tensors(t, "b3_optim/"+name+".safetensors")
			var events []event // without those that have no counterpart
			for _, e := range all[name].Events {
				if e.Ev == "loss" && e.Train || e.Ev == "real_step" {
					events = append(events, e)
				}
			}
			model := newTiny(t, dtype)
			worst, steps := 0.0, 0
			next := func(ev string) event {
				require.NotEmpty(t, events)
				e := events[0]
				events = events[1:]
				require.Equal(t, ev, e.Ev)
				return e
			}
			// The bias before a batch norm has no gradient but rounding noise, which
			// Adam scales up to the learning rate; the norm's running mean follows it.
			tolerance := func(name string) float64 {
				switch {
				case name != "b.0.bias" && name != "b.1.running_mean":
					return tol
				case dtype == nn.Float:
					return 0.2
				}
				return 1e-9
			}
			check := func(step int) {
				for _, p := range nn.Parameters(model) {
					got, err := nn.Slice[float64](p.Tensor)
					require.NoError(t, err)
					key := fmt.Sprintf("step%02d.%s", step, p.Name)
					worst = max(worst, golden.Close(t, key, got, golden.Float64s(t, want, key), tolerance(p.Name)))
				}
			}
			pendingSteps := []train.StepInfo{}
			trainer, err := train.New(model, train.Options{
				Recipe: train.Kernel, DType: dtype, Accumulate: v.accumulate, Clip: v.clip, BatchNorm: 0.025, Epsilon: &epsilon,
				Observe: train.Observer{
					Step: func(s train.StepInfo) {
						check(steps)
						steps++
						pendingSteps = append(pendingSteps, s)
						if s.EpochEnd {
							e := next("real_step")
							require.Equal(t, "epoch_end", e.At)
							require.Equal(t, e.AccBatches, s.Divisor)
							require.InDeltaSlice(t, e.LR, s.Rates, 1e-15)
							pendingSteps = nil
						}
					},
					Batch: func(b train.BatchInfo) {
						e := next("loss")
						require.InDelta(t, e.Loss, b.Loss, 10*tol)
						for _, s := range pendingSteps {
							e := next("real_step")
							require.Equal(t, e.AccBatches, s.Divisor)
							require.InDeltaSlice(t, e.LR, s.Rates, 1e-15)
							require.InDelta(t, e.Mom[0], s.Momentum, 1e-15)
						}
						pendingSteps = nil
					},
				},
			})
			require.NoError(t, err)
			source := formulaBatches("b3.train", v.batches, 2, 8, 0.3)
			var valid train.Source
			if !v.noValid {
				valid = formulaBatches("b3.valid", 3, 2, 8, 0.3)
			}
			_, err = trainer.Fit(context.Background(), train.Phase{Name: "frozen", Epochs: 2, Rates: train.SameRates(1e-2, 3), Frozen: true}, source, valid)
			require.NoError(t, err)
			rates, err := train.EvenRates(1e-2/80, 1e-2/2, 3)
			require.NoError(t, err)
			_, err = trainer.Fit(context.Background(), train.Phase{Name: "full", Epochs: 2, Rates: rates}, source, valid)
			require.NoError(t, err)
			require.Empty(t, events)
			for _, n := range nn.State(model) {
				got, err := nn.Slice[float64](n.Tensor)
				require.NoError(t, err)
				worst = max(worst, golden.Close(t, n.Name, got, golden.Float64s(t, want, "final."+n.Name), tolerance(n.Name)))
			}
			require.False(t, math.IsNaN(worst))
			t.Logf("%d steps, worst error %.2g", steps, worst)
		})
	}
}

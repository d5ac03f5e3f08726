package train

import (
	"fmt"
	"strconv"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/nn"
)

// An Average is an exponential moving average of a network's weights over the
// steps of a run: after each step it moves by 1-Decay towards the weights. At
// the first step it is set to the weights. Running statistics are averaged in
// the same way, so that they fit the averaged weights; counters are copied.
// Validation measures the average; training continues with the weights.
//
// Source: timm 0.9, ModelEmaV2, which also averages the whole state.
type Average struct {
	decay float64
	mean  *nn.StateMean
	steps int
	model nn.Module
}

// KeepAverage returns an average of the weights of model. Call it outside of any
// [nn.Scope] that ends before the run. A decay of 0.999 averages over about a
// thousand steps.
func KeepAverage(model nn.Module, decay float64) (*Average, error) {
	if !(decay >= 0 && decay < 1) {
		return nil, fmt.Errorf("train: weights averaged with decay %v, wanted a number in [0, 1)", decay)
	}
	mean, err := nn.NewStateMean(model)
	if err != nil {
		return nil, err
	}
	return &Average{decay: decay, mean: mean, model: model}, nil
}

// Hook returns the hook that updates the average after each step and puts it
// into the model for the validation.
func (a *Average) Hook() Hook {
	return Hook{
		Name:   "average",
		Memory: a,
		StepEnd: func(StepInfo) error {
			weight := 1 - a.decay
			if a.steps == 0 {
				weight = 1
			}
			a.steps++
			return a.mean.Add(weight)
		},
		EvalStart: a.swap,
		EvalEnd:   a.swap,
	}
}

func (a *Average) swap() error {
	if a.steps == 0 {
		return nil
	}
	return a.mean.Swap()
}

// Swap exchanges the average and the weights of the network: called after a run,
// it gives the network the average. A second call exchanges them again. It does
// nothing before the first step.
func (a *Average) Swap() error { return a.swap() }

// State implements [Memory].
func (a *Average) State() (*checkpoint.File, error) {
	f, err := a.mean.State()
	if err != nil {
		return nil, err
	}
	f.Metadata = map[string]string{"steps": strconv.Itoa(a.steps)}
	return f, nil
}

// SetState implements [Memory].
func (a *Average) SetState(f *checkpoint.File) error {
	steps, err := strconv.Atoi(f.Metadata["steps"])
	if err != nil {
		return fmt.Errorf("train: the average of a state: %w", err)
	}
	if err := a.mean.SetState(f); err != nil {
		return err
	}
	a.steps = steps
	return nil
}

package train

import (
	"fmt"
	"strconv"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/nn"
)

// An Average is an exponential moving average of a network's weights over the
// steps of a run: after each step it moves by 1-Decay towards the weights. Its
// first step takes the weights as they are. Running statistics are averaged the
// same way, so that they belong to the averaged weights; counters are copied.
// Validation measures the average; training goes on with the weights.
//
// Source: as timm 0.9's ModelEmaV2, which averages the whole state.
type Average struct {
	decay float64
	mean  *nn.StateMean
	steps int
	model nn.Module
}

// KeepAverage returns an average of model's weights, to be called outside of any
// [nn.Scope] that ends before the run does. A decay of 0.999 remembers about a
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

// Hook returns the hook that follows the steps and lends the average to the
// validation.
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

// Swap exchanges the average and the network's weights: after a run the network
// then is the average. A second call exchanges them again. Without a step so far
// nothing happens.
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

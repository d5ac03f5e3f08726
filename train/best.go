package train

import (
	"errors"
	"math"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/nn"
)

// A Criterion says which of two epochs is better.
type Criterion int

const (
	ByLoss Criterion = iota // lower validation loss
	ByDice                  // higher validation Dice
)

// better compares strictly; a NaN is never better.
func (c Criterion) better(a, b Epoch) bool {
	if c == ByDice {
		return a.Dice > b.Dice
	}
	return a.ValidLoss < b.ValidLoss
}

// A Best remembers a model as it was after its best epoch so far. Its Observe is
// made for [Observer]'s Epoch. Under [Kernel] the step at an epoch's end comes
// after the validation that measured it, as in the notebook.
//
// Source: fastai 1.0.54, callbacks/tracker.py, SaveModelCallback.
type Best struct {
	model nn.Module
	by    Criterion
	epoch Epoch
	state *checkpoint.File // nil before the first epoch
	err   error
}

// KeepBest returns a memory for model, without any epoch yet.
func KeepBest(model nn.Module, by Criterion) *Best {
	return &Best{model: model, by: by, epoch: Epoch{ValidLoss: math.Inf(1), Dice: math.Inf(-1)}}
}

// Observe copies the model's parameters and running statistics if e is better
// than every epoch before.
func (b *Best) Observe(e Epoch) {
	if !b.by.better(e, b.epoch) {
		return
	}
	state, err := nn.SaveState(b.model)
	if err != nil {
		b.err = errors.Join(b.err, err)
		return
	}
	b.epoch, b.state = e, state
}

// Epoch returns the best epoch; ok is false where there was none with a number to
// compare.
func (b *Best) Epoch() (e Epoch, ok bool) { return b.epoch, b.state != nil }

// State returns the model's state after the best epoch, nil without one.
func (b *Best) State() *checkpoint.File { return b.state }

// Restore puts the model back to its best epoch. It returns an error where there
// is none, or where a copy had failed.
func (b *Best) Restore() error {
	switch {
	case b.err != nil:
		return b.err
	case b.state == nil:
		return errors.New("train: no best epoch to go back to: none had a validation")
	}
	return nn.LoadState(b.model, b.state)
}

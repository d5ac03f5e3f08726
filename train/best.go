package train

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
)

// A Criterion says which of two epochs is better, by one of their values.
type Criterion struct {
	Value string `json:"value"` // name of one of the epoch's values
	Lower bool   `json:"lower"` // lower is better
}

// ByLoss prefers the lower validation loss.
var ByLoss = Criterion{Value: metric.ValidLoss, Lower: true}

// of returns the value of an epoch, negated if lower is better; NaN is never
// better.
func (c Criterion) of(e metric.Epoch) float64 {
	v := e.Value(c.Value)
	if c.Lower {
		v = -v
	}
	return v
}

// A Best keeps copies of a model after its best epochs so far. With the
// accumulation [Notebook] the step at an epoch's end comes after the validation
// that measured it, as in the notebook.
//
// Source: fastai 1.0.54, callbacks/tracker.py, SaveModelCallback.
type Best struct {
	model nn.Module
	by    Criterion
	k     int
	kept  []keptEpoch // the best first; of equal ones the earlier first
}

type keptEpoch struct {
	epoch metric.Epoch
	state *checkpoint.File
}

// KeepBest returns an empty Best for the k best epochs of model; k is usually 1.
// Each kept epoch takes as much memory as the weights of the model.
func KeepBest(model nn.Module, by Criterion, k int) *Best {
	return &Best{model: model, by: by, k: max(k, 1)}
}

// Hook returns the hook that calls Observe at the end of each epoch.
func (b *Best) Hook() Hook {
	return Hook{Name: "best " + b.by.Value, Memory: b, EpochEnd: b.Observe}
}

// Observe copies the model's parameters and running statistics if e is among the
// k best epochs so far.
func (b *Best) Observe(e metric.Epoch) error {
	v := b.by.of(e)
	if math.IsNaN(v) || len(b.kept) == b.k && !(v > b.by.of(b.kept[b.k-1].epoch)) {
		return nil
	}
	state, err := nn.SaveState(b.model)
	if err != nil {
		return fmt.Errorf("train: keeping the weights of epoch %d: %w", e.Epoch, err)
	}
	b.kept = append(b.kept[:min(len(b.kept), b.k-1)], keptEpoch{e, state})
	slices.SortStableFunc(b.kept, func(x, y keptEpoch) int { return -cmp.Compare(b.by.of(x.epoch), b.by.of(y.epoch)) })
	return nil
}

// Epoch returns the best epoch; ok is false if no epoch had a value to compare.
func (b *Best) Epoch() (e metric.Epoch, ok bool) {
	if len(b.kept) == 0 {
		return metric.Epoch{}, false
	}
	return b.kept[0].epoch, true
}

var errNoBest = errors.New("train: no best epoch to go back to: none had a validation")

// Restore sets the model to its best epoch. It returns an error if there is
// none.
func (b *Best) Restore() error {
	if len(b.kept) == 0 {
		return errNoBest
	}
	return nn.LoadState(b.model, b.kept[0].state)
}

// RestoreMean gives the model the mean of the weights of its best epochs (Izmailov
// et al. 2018, https://arxiv.org/abs/1803.05407). Running statistics are averaged
// too, but do not fit the averaged weights; measure them again with
// [Learner.Settle].
func (b *Best) RestoreMean() error {
	if len(b.kept) == 0 {
		return errNoBest
	}
	mean, err := nn.NewStateMean(b.model)
	if err != nil {
		return err
	}
	for i, k := range b.kept {
		if err := nn.LoadState(b.model, k.state); err != nil {
			return err
		}
		if err := mean.Add(1 / float64(i+1)); err != nil {
			return err
		}
	}
	return mean.Swap()
}

// State implements [Memory].
func (b *Best) State() (*checkpoint.File, error) {
	f := &checkpoint.File{}
	epochs := make([]metric.Epoch, len(b.kept))
	for i, k := range b.kept {
		epochs[i] = k.epoch
		for _, t := range k.state.Tensors {
			t.Name = fmt.Sprintf("%d.%s", i, t.Name)
			f.Tensors = append(f.Tensors, t)
		}
	}
	text, err := json.Marshal(epochs)
	f.Metadata = map[string]string{"epochs": string(text)}
	return f, err
}

// SetState implements [Memory].
func (b *Best) SetState(f *checkpoint.File) error {
	var epochs []metric.Epoch
	if err := json.Unmarshal([]byte(f.Metadata["epochs"]), &epochs); err != nil {
		return fmt.Errorf("train: the best epochs of a state: %w", err)
	}
	b.kept = nil
	for i, e := range epochs[:min(len(epochs), b.k)] {
		k := keptEpoch{e, &checkpoint.File{}}
		for _, t := range f.Tensors {
			if name, ok := strings.CutPrefix(t.Name, fmt.Sprintf("%d.", i)); ok {
				t.Name = name
				k.state.Tensors = append(k.state.Tensors, t)
			}
		}
		b.kept = append(b.kept, k)
	}
	return nil
}

package train

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/metric"
)

// EarlyStop ends a phase when its epochs have not become better for a while.
//
// Source: fastai 1.0.54, callbacks/tracker.py, EarlyStoppingCallback.
type EarlyStop struct {
	By       Criterion
	Patience int     // so many epochs without a better one are forgiven
	MinDelta float64 // by less an epoch is not better

	seen earlyStopState
}

type earlyStopState struct {
	Any     bool    `json:"any"`     // there was an epoch with a number
	Best    float64 `json:"best"`    // so that more is better
	Waiting int     `json:"waiting"` // epochs since
}

// Hook returns the hook that looks at each epoch's end and starts anew with each
// phase.
func (s *EarlyStop) Hook() Hook {
	return Hook{
		Name:       "early stop " + s.By.Value,
		Memory:     s,
		PhaseStart: func(Phase) error { s.seen = earlyStopState{}; return nil },
		EpochEnd:   s.observe,
	}
}

func (s *EarlyStop) observe(e metric.Epoch) error {
	v := s.By.of(e)
	if !math.IsNaN(v) && !math.IsInf(v, 0) && (!s.seen.Any || v > s.seen.Best+s.MinDelta) {
		s.seen = earlyStopState{Any: true, Best: v}
		return nil
	}
	if s.seen.Waiting++; s.seen.Waiting > s.Patience {
		return EndPhase
	}
	return nil
}

// State implements [Memory].
func (s *EarlyStop) State() (*checkpoint.File, error) {
	text, err := json.Marshal(s.seen)
	return &checkpoint.File{Metadata: map[string]string{"seen": string(text)}}, err
}

// SetState implements [Memory].
func (s *EarlyStop) SetState(f *checkpoint.File) error {
	if err := json.Unmarshal([]byte(f.Metadata["seen"]), &s.seen); err != nil {
		return fmt.Errorf("train: the early stopping of a state: %w", err)
	}
	return nil
}

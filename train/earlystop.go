package train

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/metric"
)

// EarlyStop ends a phase when there was no better epoch for more than Patience
// epochs.
//
// Source: fastai 1.0.54, callbacks/tracker.py, EarlyStoppingCallback.
type EarlyStop struct {
	By       Criterion
	Patience int     // number of epochs without a better one that are allowed
	MinDelta float64 // an epoch must be better by more than this

	seen earlyStopState
}

type earlyStopState struct {
	Any     bool    `json:"any"`     // there was an epoch with a number
	Best    float64 `json:"best"`    // negated if lower is better
	Waiting int     `json:"waiting"` // epochs since the best one
}

// Hook returns the hook that checks each epoch at its end. It starts again with
// each phase.
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

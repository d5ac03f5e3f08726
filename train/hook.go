package train

import (
	"errors"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/metric"
)

// What a hook returns to end training in order. Everything else that happens at
// the same moment is still done.
var (
	// Stop ends the run: [Learner.Fit] returns the epochs so far, without an error.
	Stop = errors.New("train: stopped by a hook")
	// EndPhase ends the phase as if its epochs were over.
	EndPhase = errors.New("train: phase ended by a hook")
)

// A Hook takes part in a run. Any function may be nil. Those of one moment are
// called in the order of the hooks. An error ends the run with this error, except
// [Stop] and [EndPhase]. A hook runs on the goroutine that trains; a tensor that
// it makes is freed when the phase ends, unless [nn.Keep] keeps it.
//
// The order of moments is
//
//	PhaseStart
//	  EpochStart
//	    StepStart, StepEnd     where a batch makes a step
//	    BatchEnd
//	    Pause
//	  StepStart, StepEnd       of what remains at an epoch's end
//	  EvalStart, EvalEnd       around the validation, if there is one
//	  EpochEnd
//	PhaseEnd                   after the last epoch
//	  Pause                    after each epoch
type Hook struct {
	PhaseStart func(Phase) error
	EpochStart func(epoch int) error // counted from 0 over the whole run
	StepStart  func(StepInfo) error  // the gradients are what the step will use
	StepEnd    func(StepInfo) error  // and are still there
	BatchEnd   func(BatchInfo) error
	EvalStart  func() error
	EvalEnd    func() error
	EpochEnd   func(metric.Epoch) error
	PhaseEnd   func(Phase) error

	// Pause comes after each batch and each epoch, when all else is done: the run
	// stands still, and this is where its state can be saved.
	Pause func(*Learner) error

	// Memory, if not nil, goes into the state of the run, under the hook's Name,
	// which no other hook with a memory may have.
	Name   string
	Memory Memory
}

// A Memory is what a hook must not forget when a run is stopped and goes on.
type Memory interface {
	// State returns a copy of it.
	State() (*checkpoint.File, error)
	// SetState goes back to what State returned.
	SetState(*checkpoint.File) error
}

// A BatchInfo describes a training batch that is done.
type BatchInfo struct {
	Epoch     int       // counted from 0 over the whole run
	Iteration int       // batches before it, in the phase
	Images    int       // in the batch
	Rates     []float64 // in force, per layer group
	Momentum  float64
	Loss      float64
	Norm      float64 // of the gradient before it was clipped at this batch; NaN if it was not
	Skipped   int     // steps left out so far because gradients overflowed in float16
}

// A StepInfo describes a step of the optimizer.
type StepInfo struct {
	Step      int     // steps before it, in the whole run
	Iteration int     // training batches before it, in the phase
	EpochEnd  bool    // it is taken on what remained at the end of an epoch
	Divisor   float64 // of the gathered gradients
	Rates     []float64
	Momentum  float64
}

// call calls one moment's functions of all hooks. It returns the first real error,
// or else Stop or EndPhase if a hook returned one of them; Stop is the stronger.
func call(hooks []Hook, one func(Hook) error) (err error) {
	for _, h := range hooks {
		switch e := one(h); {
		case e == nil:
		case errors.Is(e, Stop):
			err = Stop
		case errors.Is(e, EndPhase):
			if err == nil {
				err = EndPhase
			}
		default:
			return e
		}
	}
	return err
}

// moment calls f with v where there is one.
func moment[T any](f func(T) error, v T) error {
	if f == nil {
		return nil
	}
	return f(v)
}

func event(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

// ended says whether err ends training in order.
func ended(err error) bool { return errors.Is(err, Stop) || errors.Is(err, EndPhase) }

package train

import (
	"errors"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/metric"
)

// A hook returns one of these to end training in an orderly way. Everything
// else that belongs to the same moment is still done.
var (
	// Stop ends the run: [Learner.Fit] returns the epochs so far, without an error.
	Stop = errors.New("train: stopped by a hook")
	// EndPhase ends the phase as if all its epochs were done.
	EndPhase = errors.New("train: phase ended by a hook")
)

// A Hook has functions that are called during a run. Any function may be nil. The
// functions of one moment are called in the order of the hooks. An error other
// than [Stop] and [EndPhase] ends the run with this error. A hook runs on the
// goroutine that trains; a tensor that it makes is freed when the phase ends,
// unless [nn.Keep] keeps it.
//
// The order of moments is
//
//	Copying                    where images are copied to the device
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
	// Copying is called in Fit before each part of the training images is copied to the
	// device, see Parts.DeviceData, unless there are several processes. EndPhase has no
	// effect here.
	Copying func() error

	PhaseStart func(Phase) error
	EpochStart func(epoch int) error // counted from 0 over the whole run
	StepStart  func(StepInfo) error  // the gradients are those that the step will use
	StepEnd    func(StepInfo) error  // the gradients still exist
	BatchEnd   func(BatchInfo) error
	EvalStart  func() error
	EvalEnd    func() error
	EpochEnd   func(metric.Epoch) error
	PhaseEnd   func(Phase) error

	// Pause is called after each batch and each epoch, when everything else is
	// done. Here the state of the run can be saved.
	Pause func(*Learner) error

	// PauseDue returns whether Pause has something to do after this batch; nil means
	// always. Where a batch and its step can be recorded on a GPU, see [Static], and no
	// Pause is due, the device is given the next batch before the loss of this one is
	// read, so that it does not wait. Then StepStart and StepEnd of a batch come before
	// BatchEnd of the batch before it, and Pause is not called between the two. A run that
	// a BatchEnd ends has made the step of the next batch, too.
	PauseDue func() bool

	// Memory, if not nil, is stored in the state of the run under the Name of
	// the hook. Hooks with a memory must have different names.
	Name   string
	Memory Memory
}

// A Memory is the state of a hook, which is saved when a run is stopped and
// restored when it continues.
type Memory interface {
	// State returns a copy of the state.
	State() (*checkpoint.File, error)
	// SetState restores what State returned.
	SetState(*checkpoint.File) error
}

// A BatchInfo describes a training batch that is done.
type BatchInfo struct {
	Epoch     int       // counted from 0 over the whole run
	Iteration int       // number of batches before it in the phase
	Images    int       // number of images in the batch
	Rates     []float64 // current rates, per layer group
	Momentum  float64
	Loss      float64
	Norm      float64 // norm of the gradient before clipping at this batch; NaN if it was not clipped
	Skipped   int     // steps skipped so far because gradients overflowed in float16
}

// A StepInfo describes a step of the optimizer.
type StepInfo struct {
	Step      int     // number of steps before it in the whole run
	Iteration int     // number of training batches before it in the phase
	EpochEnd  bool    // it uses the gradients that remained at the end of an epoch
	Divisor   float64 // divisor of the gathered gradients
	Rates     []float64
	Momentum  float64
}

// call calls the functions of one moment of all hooks. It returns the first real
// error, else Stop if a hook returned it, else EndPhase if a hook returned it.
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

// moment calls f with v, unless f is nil.
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

// ended returns whether err is Stop or EndPhase.
func ended(err error) bool { return errors.Is(err, Stop) || errors.Is(err, EndPhase) }

package train

import "github.com/hcunet/hcunet/nn"

// An accumulator decides when gathered gradients become a step, and by what they
// are divided before.
type accumulator interface {
	// weight is the factor of a micro-batch's mean loss.
	weight(images int) float64
	// beginBatch counts a batch, of training or validation.
	beginBatch(images int, training bool)
	// endBatch follows a training batch's backward pass.
	endBatch(s *stepper) error
	// endTraining follows the epoch's last training batch.
	endTraining(s *stepper) error
	// endEpoch follows the epoch's validation.
	endEpoch(s *stepper) error
}

// A stepper does what an accumulator decides.
type stepper struct {
	params []nn.Named // trained, all groups
	clip   float64    // 0 for none
	norm   float64    // of the gradient before the last clipping, NaN without one
	step   func(divisor float64) error
}

func (s *stepper) clipNow() error {
	if s.clip == 0 {
		return nil
	}
	norm, err := nn.ClipGradNorm(s.params, s.clip)
	s.norm = norm
	return err
}

// stepNow divides the gradients, steps and zeroes them.
func (s *stepper) stepNow(divisor float64, clip bool) error {
	if err := nn.DivGrad(s.params, divisor); err != nil {
		return err
	}
	if clip {
		if err := s.clipNow(); err != nil {
			return err
		}
	}
	if err := s.step(divisor); err != nil {
		return err
	}
	return nn.ZeroGrad(s.params)
}

func newAccumulator(r Recipe, n int) accumulator {
	if r == Kernel {
		return &kernelAccumulator{n: n}
	}
	return &defaultAccumulator{n: n}
}

// defaultAccumulator sums each micro-batch's gradient times its images and divides
// by their number: the gradient of all these images as one batch. What remains at
// the end of an epoch is such a batch, too, and comes before the validation, which
// so measures the model that the epoch leaves.
type defaultAccumulator struct {
	n, batches, images int
}

func (a *defaultAccumulator) weight(images int) float64 { return float64(images) }

func (a *defaultAccumulator) beginBatch(images int, training bool) {
	if training {
		a.batches++
		a.images += images
	}
}

func (a *defaultAccumulator) endBatch(s *stepper) error {
	if a.batches < a.n {
		return nil
	}
	return a.stepNow(s)
}

func (a *defaultAccumulator) endTraining(s *stepper) error {
	if a.batches == 0 {
		return nil
	}
	return a.stepNow(s)
}

func (a *defaultAccumulator) endEpoch(*stepper) error { return nil }

func (a *defaultAccumulator) stepNow(s *stepper) error {
	images := a.images
	a.batches, a.images = 0, 0
	return s.stepNow(float64(images), true)
}

// kernelAccumulator is the notebook's AccumulateStep with its GradientClipping:
// the undivided sum is clipped after every micro-batch; a step comes when the
// count has the remainder n-1, so every n-1 micro-batches; validation batches
// count too, so that an epoch with validation always ends in a step, if need be
// on a gradient of zero.
//
// Source: the notebook, cell 4; fastai 1.0.54, callback order GradientClipping,
// AccumulateStep, OneCycleScheduler.
type kernelAccumulator struct {
	n, batches int
}

func (a *kernelAccumulator) weight(int) float64 { return 1 }

func (a *kernelAccumulator) beginBatch(int, bool) { a.batches++ }

func (a *kernelAccumulator) endBatch(s *stepper) error {
	if err := s.clipNow(); err != nil {
		return err
	}
	if a.batches%a.n != a.n-1 {
		return nil
	}
	return a.stepNow(s)
}

func (a *kernelAccumulator) endTraining(*stepper) error { return nil }

func (a *kernelAccumulator) endEpoch(s *stepper) error {
	if a.batches == 0 {
		return nil
	}
	return a.stepNow(s)
}

func (a *kernelAccumulator) stepNow(s *stepper) error {
	n := a.batches
	a.batches = 0
	return s.stepNow(float64(n), false)
}

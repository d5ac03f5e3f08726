package train

import (
	"math"

	"github.com/hcunet/hcunet/nn"
)

// gathered counts what the gradients gathered since the last step are made of.
type gathered struct {
	Batches int `json:"batches"`
	Images  int `json:"images"`
}

// An accumulator decides when gathered gradients become a step, and by what they
// are divided before. Its memory is the gathered that it is given.
type accumulator interface {
	// weight is the factor of a micro-batch's mean loss.
	weight(images int) float64
	// beginBatch counts a batch, of training or validation.
	beginBatch(g *gathered, images int, training bool)
	// completes says whether the batch that has just begun ends in a step, or, as the
	// epoch's last, is followed by one.
	completes(g *gathered, last bool) bool
	// endBatch follows a training batch's backward pass.
	endBatch(g *gathered, s *stepper) error
	// endTraining follows the epoch's last training batch.
	endTraining(g *gathered, s *stepper) error
	// endEpoch follows the epoch's validation.
	endEpoch(g *gathered, s *stepper) error
}

func newAccumulator(c Config) accumulator {
	if c.Accumulation == Notebook {
		return notebookAccumulator{c.MicroBatches}
	}
	return meanAccumulator{c.MicroBatches}
}

// meanAccumulator is [Mean]: it sums each micro-batch's gradient times its images
// and divides by their number, which is the gradient of all these images as one
// batch. What remains at the end of an epoch is such a batch, too, and comes
// before the validation, which so measures the model that the epoch leaves.
type meanAccumulator struct{ n int }

func (meanAccumulator) weight(images int) float64 { return float64(images) }

func (meanAccumulator) beginBatch(g *gathered, images int, training bool) {
	if training {
		g.Batches++
		g.Images += images
	}
}

func (a meanAccumulator) completes(g *gathered, last bool) bool { return last || g.Batches >= a.n }

func (a meanAccumulator) endBatch(g *gathered, s *stepper) error {
	if g.Batches < a.n {
		return nil
	}
	return a.stepNow(g, s)
}

func (a meanAccumulator) endTraining(g *gathered, s *stepper) error {
	if g.Batches == 0 {
		return nil
	}
	return a.stepNow(g, s)
}

func (meanAccumulator) endEpoch(*gathered, *stepper) error { return nil }

func (meanAccumulator) stepNow(g *gathered, s *stepper) error {
	images := g.Images
	*g = gathered{}
	return s.stepNow(float64(images), true)
}

// notebookAccumulator is [Notebook].
type notebookAccumulator struct{ n int }

func (notebookAccumulator) weight(int) float64 { return 1 }

func (notebookAccumulator) beginBatch(g *gathered, images int, _ bool) {
	g.Batches++
	g.Images += images
}

func (a notebookAccumulator) completes(g *gathered, last bool) bool {
	return last || g.Batches%a.n == a.n-1
}

func (a notebookAccumulator) endBatch(g *gathered, s *stepper) error {
	if err := s.clipNow(); err != nil {
		return err
	}
	if g.Batches%a.n != a.n-1 {
		return nil
	}
	return a.stepNow(g, s)
}

func (notebookAccumulator) endTraining(*gathered, *stepper) error { return nil }

func (a notebookAccumulator) endEpoch(g *gathered, s *stepper) error {
	if g.Batches == 0 {
		return nil
	}
	return a.stepNow(g, s)
}

func (notebookAccumulator) stepNow(g *gathered, s *stepper) error {
	n := g.Batches
	*g = gathered{}
	return s.stepNow(float64(n), false)
}

// A stepper does what an accumulator decides.
type stepper struct {
	params []nn.Named // trained, all groups
	clip   float64    // 0 for none
	norm   float64    // of the gradient before the last clipping, NaN without one
	scaler *scaler
	step   func(divisor float64) error
}

// clipNow clips the gradients as they are, scaled or not.
func (s *stepper) clipNow() error {
	if s.clip == 0 {
		return nil
	}
	scale := s.scaler.scale()
	norm, err := nn.ClipGradNorm(s.params, s.clip*scale)
	s.norm = norm / scale
	if err == nil && !finite(s.norm) && !s.scaler.on() {
		err = &badNumber{"the norm of the gradient", s.norm}
	}
	return err
}

// stepNow divides the gradients, steps and zeroes them. Gradients that are not
// finite never reach the parameters.
func (s *stepper) stepNow(divisor float64, clip bool) error {
	scale := s.scaler.scale()
	if err := nn.DivGrad(s.params, divisor*scale); err != nil {
		return err
	}
	if s.scaler.on() {
		norm, err := nn.GradNorm(s.params)
		if err != nil {
			return err
		}
		if s.scaler.update(finite(norm)); !finite(norm) {
			return nn.ZeroGrad(s.params)
		}
	}
	switch {
	case clip && s.clip > 0:
		norm, err := nn.ClipGradNorm(s.params, s.clip)
		if s.norm = norm; err == nil && !finite(norm) {
			err = &badNumber{"the norm of the gradient", norm}
		}
		if err != nil {
			return err
		}
	case s.clip == 0 && !s.scaler.on():
		norm, err := nn.GradNorm(s.params) // 28 ms for the notebook's network, whose step takes seconds
		if err == nil && !finite(norm) {
			err = &badNumber{"the norm of the gradient", norm}
		}
		if err != nil {
			return err
		}
	}
	if err := s.step(divisor); err != nil {
		return err
	}
	return nn.ZeroGrad(s.params)
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

package train

import (
	"math"

	"github.com/hcunet/hcunet/nn"
)

// gathered counts the batches and images whose gradients were gathered since
// the last step.
type gathered struct {
	Batches int `json:"batches"`
	Images  int `json:"images"`
}

// An accumulator decides when gathered gradients become a step, and by what they
// are divided before. It keeps its state in the gathered that is passed to it.
type accumulator interface {
	// weight returns the factor of the mean loss of a micro-batch.
	weight(images int) float64
	// beginBatch counts a batch, of training or validation.
	beginBatch(g *gathered, images int, training bool)
	// completes returns whether a step follows the batch that has just begun, at the
	// end of the batch or, for the last batch, at the end of the epoch.
	completes(g *gathered, last bool) bool
	// endBatch is called after the backward pass of a training batch.
	endBatch(g *gathered, s *stepper) error
	// endTraining is called after the last training batch of an epoch.
	endTraining(g *gathered, s *stepper) error
	// endEpoch is called after the validation of an epoch.
	endEpoch(g *gathered, s *stepper) error
}

func newAccumulator(c Config) accumulator {
	if c.Accumulation == Notebook {
		return notebookAccumulator{c.MicroBatches}
	}
	return meanAccumulator{c.MicroBatches}
}

// meanAccumulator implements [Mean]. It sums the gradients of the micro-batches,
// each times its number of images, and divides by the number of all these images.
// The result is the gradient of all images as one batch. The gradients that
// remain at the end of an epoch also make a step, before the validation, so that
// the validation measures the model at the end of the epoch.
// After a step there are no gradients, so that they take no memory until the next
// backward pass.
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
	if err := s.stepNow(float64(images), true); err != nil {
		return err
	}
	return nn.DropGrad(s.params)
}

// notebookAccumulator implements [Notebook].
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
	if err := s.stepNow(float64(n), false); err != nil {
		return err
	}
	return nn.ZeroGrad(s.params) // the next step may come without a batch before it
}

// A stepper clips gradients and takes steps when an accumulator asks for it.
type stepper struct {
	params []nn.Named // trained parameters of all groups
	clip   float64    // 0 for none
	norm   float64    // norm of the gradient before the last clipping, NaN without clipping
	scaler *scaler
	step   func(divisor float64) error
}

// clipNow clips the gradients as they are now, whether scaled or not.
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

// stepNow divides the gradients and steps. Gradients that are not finite never reach
// the parameters.
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
			return nil
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
	return s.step(divisor)
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

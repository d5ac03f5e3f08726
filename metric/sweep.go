package metric

import (
	"fmt"
	"slices"
)

// Thresholds returns the 99 thresholds the notebook tries, 0.01 to 0.99, with
// the rounding errors of numpy's arange(0.01, 1, 0.01).
func Thresholds() []float64 {
	t := make([]float64, 99)
	for i := range t {
		t[i] = 0.01 + float64(float64(i)*0.01) // the inner conversion forbids a fused multiply-add
	}
	return t
}

// A Sweep collects the mean Dice of one class at many thresholds. Each image is
// read once and not kept.
//
// Sums of scores are exact, so a Sweep depends on the set of images alone, not
// on their order or on how they were divided among Sweeps that were merged. A
// Sweep is not for several goroutines: give each its own, then Merge.
type Sweep struct {
	counter counter
	noise   Noise
	curve   Curve
	tallies []tally // per threshold
}

// NewSweep returns an empty Sweep. nil thresholds are those of [Thresholds].
// Noise rules act on each image, MinPixels at each threshold anew. It panics if
// there is no threshold or they do not ascend within [0, 1].
func NewSweep(thresholds []float64, noise Noise) *Sweep {
	if thresholds == nil {
		thresholds = Thresholds()
	}
	c, err := newCounter(thresholds)
	if err != nil {
		panic(err)
	}
	return &Sweep{counter: c, noise: noise, tallies: make([]tally, len(thresholds))}
}

// Add takes one image: the probability of a class and the target. It panics if
// they differ in length.
func (s *Sweep) Add(prob []float32, target []uint8, class uint8) {
	mustMatch(len(prob), len(target))
	s.counter.read(prob, target, class)
	s.counter.curve(&s.curve)
	if s.noise.MinSum > 0 {
		s.curve.Sum = Sum(prob)
	}
	for k := range s.tallies {
		o := s.curve.At(k)
		if s.curve.Sum < s.noise.MinSum || float64(o.Predicted) < s.noise.MinPixels {
			o.Both, o.Predicted = 0, 0
		}
		s.tallies[k].add(o)
	}
}

// Merge adds the images of another Sweep, such as that of another fold. It
// returns an error if the other has other thresholds or noise rules.
func (s *Sweep) Merge(o *Sweep) error {
	if !slices.Equal(s.counter.thresholds, o.counter.thresholds) || s.noise != o.noise {
		return fmt.Errorf("metric: cannot merge a sweep of %d thresholds with noise %+v into one of %d with noise %+v: they must be the same",
			len(o.tallies), o.noise, len(s.tallies), s.noise)
	}
	for k := range s.tallies {
		s.tallies[k].merge(o.tallies[k])
	}
	return nil
}

// Thresholds returns the thresholds of the sweep, ascending.
func (s *Sweep) Thresholds() []float64 { return slices.Clone(s.counter.thresholds) }

// Images returns the number of images added.
func (s *Sweep) Images() int { return s.tallies[0].images() }

// Dice returns the mean Dice at each threshold, NaN if there was no image.
func (s *Sweep) Dice() []float64 {
	d := make([]float64, len(s.tallies))
	for k := range d {
		d[k] = s.At(k).Dice
	}
	return d
}

// At returns the mean Dice at threshold k and its parts.
func (s *Sweep) At(k int) Parts { return s.tallies[k].parts() }

// Best returns the threshold of the highest mean Dice, the lowest such threshold
// if there are several, as numpy's argmax picks it; the first one if the sweep
// has seen no images.
//
// A Dice at a threshold chosen on the same images flatters.
func (s *Sweep) Best() (threshold float64, at Parts) {
	best := 0
	dice := s.Dice()
	for k, d := range dice {
		if d > dice[best] {
			best = k
		}
	}
	return s.counter.thresholds[best], s.At(best)
}

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

// A Sweep computes the mean Dice of one class at many thresholds. It reads each
// image once and does not keep it.
//
// Sums of scores are exact, so the result depends only on the set of images,
// not on their order or on how they were divided among several Sweeps before
// they were merged. A Sweep must not be used by several goroutines at once:
// give each its own, then call Merge.
type Sweep struct {
	counter counter
	noise   Noise
	curve   Curve
	tallies []tally // per threshold
}

// NewSweep returns an empty Sweep. nil thresholds mean [Thresholds]. The noise
// rules apply to each image; MinPixels applies separately at each threshold. It
// panics if there are no thresholds, or if they do not ascend within [0, 1].
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

// Add adds one image: the probability of a class and the target. It panics if
// their lengths differ.
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

// Merge adds the images of another Sweep, such as the Sweep of another fold. It
// returns an error if the thresholds or noise rules differ.
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

// At returns the mean Dice at threshold k and its components.
func (s *Sweep) At(k int) Parts { return s.tallies[k].parts() }

// Best returns the threshold with the highest mean Dice, the lowest such
// threshold if there are several, as numpy's argmax does. It returns the first
// threshold if no image was added.
//
// A Dice at a threshold that was chosen on the same images is too high.
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

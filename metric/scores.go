package metric

import (
	"fmt"
	"math"
	"slices"
)

// A Decision is the way in which the predicted class of a pixel is found.
type Decision int

const (
	ByThreshold Decision = iota // every class whose probability is above the threshold, independently of the others
	ByArgmax                    // the class with the highest probability, background included
)

// ScoreOptions say what a [Scores] measures.
type ScoreOptions struct {
	Classes []string // names of the classes from 1 on, without the background

	Decision  Decision
	Threshold float64 // for ByThreshold
	Noise     Noise   // for ByThreshold

	Curves    bool // also measure what needs no threshold
	Distances bool // also measure the distances between outlines, which takes the most time
}

// Scores measure the usual scores of each class:
//
//	dice               mean over images; 1 where both masks are empty
//	iou                mean over images; 1 where both masks are empty
//	pixel_sensitivity  share of all target pixels that are predicted
//	pixel_specificity  share of all other pixels that are not predicted
//	case_sensitivity   share of images with a target on which anything is predicted
//	case_specificity   share of images without a target on which nothing is predicted
//
// With Curves, for either decision, it also measures:
//
//	average_precision  of all pixels together, see [Histogram.AveragePrecision]
//	best_dice          highest mean Dice over images of the 99 thresholds of [Thresholds], without noise rules
//	best_threshold     the lowest threshold that has best_dice
//
// With Distances, it also measures, over the images where neither mask is empty:
//
//	hausdorff95        mean of [Distances].Hausdorff95
//	surface_distance   mean of [Distances].Mean
//	distance_images    number of such images
//
// With several classes, "dice" is the mean over the classes whose value is not
// NaN, and "dice/NAME" is the value of one class. The same holds for every
// score, distance_images included.
//
// Sums are exact: the values do not depend on the order of the images, or on how the
// images were divided among several Scores before they were merged.
type Scores struct {
	opt     ScoreOptions
	classes []classScores
	mask    []uint8 // of one image
}

type classScores struct {
	tally
	found                         int // positives with anything predicted
	iou                           exactSum
	both, predicted, target, area int // pixels

	histogram *Histogram
	sweep     *Sweep

	measured            int
	hausdorff, distance exactSum
}

// distanceUnit is the power of two by which distances are divided before they are
// added, so that an exactSum can hold sums up to 2^56. Parts below 2^-72 are cut
// off.
const distanceUnit = 1 << 24

// NewScores returns Scores without images.
func NewScores(opt ScoreOptions) (*Scores, error) {
	switch {
	case len(opt.Classes) == 0 || len(opt.Classes) > 255:
		return nil, fmt.Errorf("metric: scores of %d classes, want 1 to 255 besides the background", len(opt.Classes))
	case opt.Decision != ByThreshold && opt.Decision != ByArgmax:
		return nil, fmt.Errorf("metric: decision %d, want ByThreshold or ByArgmax", opt.Decision)
	case opt.Decision == ByThreshold && !(opt.Threshold >= 0 && opt.Threshold < 1):
		return nil, fmt.Errorf("metric: threshold %v, want a number in [0, 1)", opt.Threshold)
	case opt.Decision == ByArgmax && (opt.Threshold != 0 || opt.Noise != Noise{}):
		return nil, fmt.Errorf("metric: a threshold of %v or noise %+v has no meaning with ByArgmax", opt.Threshold, opt.Noise)
	}
	opt.Classes = slices.Clone(opt.Classes)
	s := &Scores{opt: opt}
	s.Reset()
	return s, nil
}

// Reset forgets all images.
func (s *Scores) Reset() {
	s.classes = make([]classScores, len(s.opt.Classes))
	for i := range s.classes {
		if s.opt.Curves {
			s.classes[i].histogram, s.classes[i].sweep = &Histogram{}, NewSweep(nil, Noise{})
		}
	}
}

// Add measures an image.
func (s *Scores) Add(im *Image) error {
	if err := im.Check(); err != nil {
		return err
	}
	last := im.First + len(im.Prob)/len(im.Target) - 1
	if last != len(s.classes) {
		return fmt.Errorf("metric: image %q has probabilities of classes %d to %d; the scores are of 1 to %d: %q", im.Name, im.First, last, len(s.classes), s.opt.Classes)
	}
	if m := slices.Max(im.Target); int(m) > len(s.classes) {
		return fmt.Errorf("metric: image %q has a target of class %d; the scores are of 1 to %d: %q", im.Name, m, len(s.classes), s.opt.Classes)
	}
	if s.opt.Decision == ByArgmax && im.First == 1 {
		return fmt.Errorf("metric: image %q has no probabilities of the background; ByArgmax needs them", im.Name)
	}
	if len(s.mask) != len(im.Target) {
		s.mask = make([]uint8, len(im.Target))
	}
	if s.opt.Decision == ByArgmax {
		im.Argmax(s.mask)
	}
	for i := range s.classes {
		class := uint8(i + 1)
		prob := im.Class(class)
		c := &s.classes[i]
		var o Overlap
		if s.opt.Decision == ByArgmax {
			o = CompareMasks(s.mask, im.Target, class)
		} else {
			o = Compare(prob, im.Target, class, s.opt.Threshold, s.opt.Noise)
		}
		c.add(o, len(prob))
		if s.opt.Curves {
			c.histogram.Add(prob, im.Target, class)
			c.sweep.Add(prob, im.Target, class)
		}
		if !s.opt.Distances || o.Predicted == 0 || o.Target == 0 {
			continue
		}
		if s.opt.Decision == ByThreshold {
			clear(s.mask)
			Rule{Bottom: s.opt.Threshold}.Apply(s.mask, prob, class)
		}
		d, err := SurfaceDistances(s.mask, im.Target, class, im.Width, im.Height, im.Spacing)
		if err != nil {
			return fmt.Errorf("image %q: %w", im.Name, err)
		}
		c.measured++
		c.hausdorff.add(exact(d.Hausdorff95 / distanceUnit))
		c.distance.add(exact(d.Mean / distanceUnit))
	}
	return nil
}

func (c *classScores) add(o Overlap, area int) {
	c.tally.add(o)
	c.iou.add(exact(o.IoU()))
	if o.Target > 0 && o.Predicted > 0 {
		c.found++
	}
	c.both += o.Both
	c.predicted += o.Predicted
	c.target += o.Target
	c.area += area
}

// Merge adds the images of another Scores, for example from another process. It
// returns an error if their options differ.
func (s *Scores) Merge(o *Scores) error {
	if !slices.Equal(s.opt.Classes, o.opt.Classes) || s.opt.Decision != o.opt.Decision || s.opt.Threshold != o.opt.Threshold ||
		s.opt.Noise != o.opt.Noise || s.opt.Curves != o.opt.Curves || s.opt.Distances != o.opt.Distances {
		return fmt.Errorf("metric: cannot merge scores %+v into %+v: they must be the same", o.opt, s.opt)
	}
	for i := range s.classes {
		c, d := &s.classes[i], &o.classes[i]
		c.tally.merge(d.tally)
		c.found += d.found
		c.iou.add(d.iou)
		c.both += d.both
		c.predicted += d.predicted
		c.target += d.target
		c.area += d.area
		c.measured += d.measured
		c.hausdorff.add(d.hausdorff)
		c.distance.add(d.distance)
		if s.opt.Curves {
			c.histogram.Merge(d.histogram)
			if err := c.sweep.Merge(d.sweep); err != nil {
				return err
			}
		}
	}
	return nil
}

// Values returns the scores in the order of the list at [Scores]; with several
// classes, the values of the classes follow each score.
func (s *Scores) Values() Values {
	byClass := make([]Values, len(s.classes))
	for i := range s.classes {
		byClass[i] = s.classes[i].values(&s.opt)
	}
	if len(byClass) == 1 {
		return byClass[0]
	}
	var values Values
	for k, v := range byClass[0] {
		var mean Mean
		var each Values
		for i, name := range s.opt.Classes {
			x := byClass[i][k].Value
			if !math.IsNaN(x) {
				mean.Add(x, 1)
			}
			each = append(each, Value{v.Name + "/" + name, x})
		}
		values = append(values, Value{v.Name, mean.Value()})
		values = append(values, each...)
	}
	return values
}

func (c *classScores) values(opt *ScoreOptions) Values {
	images := c.images()
	v := Values{
		{"dice", c.mean()},
		{"iou", c.iou.over(images)},
		{"pixel_sensitivity", share(c.both, c.target)},
		{"pixel_specificity", share(c.area-c.predicted-(c.target-c.both), c.area-c.target)},
		{"case_sensitivity", share(c.found, c.positives)},
		{"case_specificity", share(c.correct, c.negatives)},
	}
	if opt.Curves {
		threshold, best := c.sweep.Best()
		if images == 0 {
			threshold = math.NaN()
		}
		v = append(v, Value{"average_precision", c.histogram.AveragePrecision().Value}, Value{"best_dice", best.Dice}, Value{"best_threshold", threshold})
	}
	if opt.Distances {
		v = append(v, Value{"hausdorff95", c.hausdorff.over(c.measured) * distanceUnit}, Value{"surface_distance", c.distance.over(c.measured) * distanceUnit}, Value{"distance_images", float64(c.measured)})
	}
	return v
}

// share returns n/of, or NaN if both are 0.
func share(n, of int) float64 { return float64(n) / float64(of) }

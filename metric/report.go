package metric

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// Parts is a mean Dice over images and its components. A negative, an image
// whose target is empty, scores 1 if nothing is predicted on it and 0 otherwise,
// so
//
//	Dice = share of negatives * Specificity + share of positives * DicePositive
//
// If most images are negative, Dice says little about whether anything is
// found.
type Parts struct {
	Dice      float64 // mean over all images; NaN without images
	Negatives int     // images whose target is empty
	Positives int

	Specificity  float64 // of cases: share of negatives predicted empty; 0 if there are none
	DicePositive float64 // mean Dice of the positives; 0 if there are none
}

// Images returns the number of images.
func (p Parts) Images() int { return p.Negatives + p.Positives }

// AllEmpty returns the Dice that predicting nothing on every image would have:
// the share of negatives.
func (p Parts) AllEmpty() float64 { return float64(p.Negatives) / float64(p.Images()) }

// String returns the sum above on one line, with the score of predicting nothing.
// A component without images is left out.
func (p Parts) String() string {
	if p.Images() == 0 {
		return "no images"
	}
	var parts []string
	if p.Negatives > 0 {
		parts = append(parts, fmt.Sprintf("%.4f·%.4f (specificity, %d negatives)", p.AllEmpty(), p.Specificity, p.Negatives))
	}
	if p.Positives > 0 {
		parts = append(parts, fmt.Sprintf("%.4f·%.4f (Dice, %d positives)", 1-p.AllEmpty(), p.DicePositive, p.Positives))
	}
	return fmt.Sprintf("Dice %.4f = %s; predicting nothing: %.4f", p.Dice, strings.Join(parts, " + "), p.AllEmpty())
}

// Chosen says on which images the thresholds of a report were chosen.
type Chosen int

const (
	ChosenBefore   Chosen = iota // on none of the scored images
	ChosenOnOthers               // for each fold on the other folds
	ChosenOnSame                 // on the scored images: the score is too high
)

func (c Chosen) String() string {
	switch c {
	case ChosenOnOthers:
		return "thresholds chosen for each fold on the other folds"
	case ChosenOnSame:
		return "thresholds chosen on these same images, which flatters"
	default:
		return "thresholds chosen beforehand"
	}
}

// MarshalText writes what String returns.
func (c Chosen) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// A Report holds the scores of one class on a set of images.
type Report struct {
	Class  string // its name; "" if there is only one class
	Chosen Chosen
	Parts
	IoU         float64 // mean over all images
	IoUPositive float64 // mean over the positives; 0 if there are none
	Sensitivity float64 // of cases: share of positives on which anything was predicted; 0 if there are none

	// Interval contains the mean Dice of another sample of as many such images
	// with probability Level. It is zero if ReportOptions.Rand is nil.
	Interval Interval
}

// An Interval is a confidence interval of a score, by the bootstrap.
type Interval struct {
	Low, High float64
	Level     float64 // probability that a score lies in the interval
}

// ReportOptions are optional settings of a report.
type ReportOptions struct {
	Class  string // name to print; "" prints none
	Chosen Chosen // on which images the thresholds were chosen

	// Rand draws the bootstrap samples; nil means no Interval.
	Rand *rand.Rand

	Resamples int     // 0 means 2000
	Level     float64 // 0 means 0.95

	// Groups holds for each image the name of its group, such as the patient.
	// Images of one patient are not independent evidence, so the bootstrap
	// draws all images of a group together. nil means that each image is its
	// own group.
	Groups []string
}

// Summarize returns the report on images that are given by their counts. A nil
// opt means the zero value. It panics if Groups is not as long as images, or if
// Level is not inside (0, 1).
func Summarize(images []Overlap, opt *ReportOptions) Report {
	if opt == nil {
		opt = &ReportOptions{}
	}
	var (
		all              tally
		found            int
		iou, iouPositive exactSum
	)
	for _, o := range images {
		all.add(o)
		iou.add(exact(o.IoU()))
		if o.Target > 0 {
			iouPositive.add(exact(o.IoU()))
			if o.Predicted > 0 {
				found++
			}
		}
	}
	r := Report{Class: opt.Class, Chosen: opt.Chosen, Parts: all.parts(), IoU: iou.over(len(images))}
	if all.positives > 0 {
		r.IoUPositive = iouPositive.over(all.positives)
		r.Sensitivity = float64(found) / float64(all.positives)
	}
	if opt.Rand != nil && len(images) > 0 {
		r.Interval = bootstrap(images, opt)
	}
	return r
}

// bootstrap returns the percentile interval of the mean Dice over images.
//
// Source: B. Efron, Ann. Statist. 7 (1979); whole groups are drawn as in A. C.
// Davison and D. V. Hinkley, Bootstrap Methods (1997), section 3.8.
func bootstrap(images []Overlap, opt *ReportOptions) Interval {
	level, resamples := opt.Level, opt.Resamples
	if level == 0 {
		level = 0.95
	}
	if resamples <= 0 {
		resamples = 2000
	}
	if !(level > 0 && level < 1) {
		panic(fmt.Errorf("metric: level %v; want a probability between 0 and 1", level))
	}
	groups := groupSums(images, opt.Groups)
	means := make([]float64, resamples)
	for i := range means {
		var m Mean
		for range groups {
			m.Merge(groups[opt.Rand.IntN(len(groups))])
		}
		means[i] = m.Value()
	}
	slices.Sort(means)
	tail := (1 - level) / 2 * float64(resamples-1)
	return Interval{means[int(math.Floor(tail))], means[resamples-1-int(math.Floor(tail))], level}
}

// groupSums returns the summed Dice of each group, in order of appearance.
func groupSums(images []Overlap, names []string) []Mean {
	if names != nil && len(names) != len(images) {
		panic(fmt.Errorf("metric: %d groups for %d images", len(names), len(images)))
	}
	var sums []Mean
	index := map[string]int{}
	for i, o := range images {
		at := len(sums)
		if names != nil {
			if known, ok := index[names[i]]; ok {
				at = known
			} else {
				index[names[i]] = at
			}
		}
		if at == len(sums) {
			sums = append(sums, Mean{})
		}
		sums[at].Add(o.Dice(), 1)
	}
	return sums
}

// String returns the report as a few lines of text.
func (r Report) String() string {
	if r.Images() == 0 {
		return "no images"
	}
	var b strings.Builder
	if r.Class != "" {
		fmt.Fprintf(&b, "%s\n", r.Class)
	}
	fmt.Fprintf(&b, "Dice              %.4f", r.Dice)
	if r.Interval.Level > 0 {
		fmt.Fprintf(&b, "  [%.4f, %.4f] with probability %.4g", r.Interval.Low, r.Interval.High, r.Interval.Level)
	}
	fmt.Fprintf(&b, "  %v", r.Chosen)
	sign := "="
	if r.Negatives > 0 {
		fmt.Fprintf(&b, "\n  = %.4f * %.4f  share of negatives (%d) * case specificity", r.AllEmpty(), r.Specificity, r.Negatives)
		sign = "+"
	}
	if r.Positives > 0 {
		fmt.Fprintf(&b, "\n  %s %.4f * %.4f  share of positives (%d) * their Dice", sign, 1-r.AllEmpty(), r.DicePositive, r.Positives)
	}
	fmt.Fprintf(&b, "\nnothing at all    %.4f  what predicting nothing would score", r.AllEmpty())
	fmt.Fprintf(&b, "\nIoU               %.4f", r.IoU)
	if r.Positives > 0 {
		fmt.Fprintf(&b, "  on positives %.4f", r.IoUPositive)
		fmt.Fprintf(&b, "\ncase sensitivity  %.4f  positives with anything predicted", r.Sensitivity)
	}
	return b.String()
}

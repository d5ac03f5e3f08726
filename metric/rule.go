package metric

import "fmt"

// A Rule makes a mask of the probabilities of a class. The zero Rule keeps all that
// is above 0.
//
// With Top above Bottom it is the rule of the SIIM-ACR challenge's first place, a
// triplet: an image must have MinArea pixels above a high threshold to have a mask at
// all, and then has all that is above a low one.
//
// Source: A. Anuar, https://github.com/sneddy/pneumothorax-segmentation, "Triplet
// scheme of inference"; there (0.75, 2000, 0.3) at 1024x1024.
type Rule struct {
	MinSum  float64 `json:"min_sum"`  // an image whose probabilities sum to less has no mask: the notebook's noise rule
	Top     float64 `json:"top"`      // threshold above which pixels count towards MinArea
	MinArea int     `json:"min_area"` // an image with fewer of these has no mask
	Bottom  float64 `json:"bottom"`   // threshold above which pixels are in the mask
}

// ThresholdRule returns the rule of one threshold and the notebook's noise rule; 0
// is no noise rule.
func ThresholdRule(threshold, minSum float64) Rule {
	return Rule{MinSum: minSum, Top: threshold, Bottom: threshold}
}

// String returns the rule in words.
func (r Rule) String() string {
	s := fmt.Sprintf("above %.4g", r.Bottom)
	if r.MinArea > 0 {
		s += fmt.Sprintf(" if at least %d pixels are above %.4g", r.MinArea, r.Top)
	}
	if r.MinSum > 0 {
		s += fmt.Sprintf(" if probabilities sum to at least %.6g", r.MinSum)
	}
	return s
}

// Keeps says whether an image has a mask at all.
func (r Rule) Keeps(prob []float32) bool {
	return !(r.MinSum > 0 && Sum(prob) < r.MinSum) && (r.MinArea <= 0 || CountAbove(prob, r.Top) >= r.MinArea)
}

// Apply sets the pixels of the mask to value where the rule predicts the class, and
// leaves the others. It panics if prob and mask differ in length.
func (r Rule) Apply(mask []uint8, prob []float32, value uint8) {
	mustMatch(len(prob), len(mask))
	if !r.Keeps(prob) {
		return
	}
	thr := float32(r.Bottom)
	for i, p := range prob {
		if p > thr {
			mask[i] = value
		}
	}
}

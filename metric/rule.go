package metric

import "fmt"

// A Rule turns the probabilities of a class into a mask. The zero Rule keeps all
// pixels above 0.
//
// With Top above Bottom it is the triplet rule of the first place of the SIIM-ACR
// challenge: an image has a mask only if at least MinArea pixels are above the high
// threshold Top, and then the mask is all pixels above the low threshold Bottom.
//
// Source: A. Anuar, https://github.com/sneddy/pneumothorax-segmentation, "Triplet
// scheme of inference"; there (0.75, 2000, 0.3) at 1024x1024.
type Rule struct {
	MinSum  float64 `json:"min_sum"`  // an image whose probabilities sum to less has no mask: the notebook's noise rule
	Top     float64 `json:"top"`      // threshold above which pixels count towards MinArea
	MinArea int     `json:"min_area"` // an image with fewer of these has no mask
	Bottom  float64 `json:"bottom"`   // threshold above which pixels are in the mask
}

// ThresholdRule returns the rule with one threshold and the notebook's noise rule;
// a minSum of 0 means no noise rule.
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

// Keeps returns whether the image has a mask under the rule.
func (r Rule) Keeps(prob []float32) bool {
	return !(r.MinSum > 0 && Sum(prob) < r.MinSum) && (r.MinArea <= 0 || CountAbove(prob, r.Top) >= r.MinArea)
}

// Apply sets the pixels of mask to value where the rule predicts the class, and
// leaves the others unchanged. It panics if prob and mask differ in length.
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

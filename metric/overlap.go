// Package metric scores predicted segmentation masks against true ones.
//
// [Overlap] has Dice and IoU of one image, [SurfaceDistances] the distances between
// outlines in millimetres, [Histogram] the scores that need no threshold. A
// [Metric] measures over the images of an epoch; [NewScores] makes the usual ones.
// A [Table] keeps only some hundred bytes of each held-out image: enough to search
// thresholds and to report scores.
//
// An image is a slice of its H*W pixels. Prediction and target must have the same
// order of pixels, whichever it is. Probabilities are float32 in [0, 1]; targets
// are class indices, one byte each, and 0 is the background. The probability of a
// class is compared with the pixels whose target is that class; if there is only
// one class to find, it is class 1. A pixel is predicted if its probability is
// greater than the threshold; the two are compared as float32, as torch compares a
// float32 tensor with a number. NaN is never predicted.
//
// Every image counts the same, whatever its size, and an image scores 1 if both
// masks are empty. This is the rule of the SIIM-ACR challenge; on its images,
// predicting nothing scores 0.777.
package metric

import (
	"fmt"
	"math"
)

// KernelThreshold is the probability above which the notebook's training metric
// counts a pixel as predicted (its best_thr0).
const KernelThreshold = 0.2

// Noise says which predictions are so small that they count as empty. The zero
// Noise keeps all. The notebook has two such rules and uses one number for
// both, [NoiseArea].
type Noise struct {
	// MinSum makes a prediction empty if its probabilities sum to less. It is
	// applied before any threshold. This is the rule of the notebook's
	// pipeline.
	MinSum float64

	// MinPixels makes a prediction empty if fewer pixels are above the
	// threshold. This is the rule of the notebook's training metric.
	MinPixels float64
}

// NoiseArea returns the notebook's noise threshold for images of that size. It
// is 75 pixels at 128x128 and proportional to the area: 75*(256/128)^2 = 300 at
// 256x256.
func NoiseArea(width, height int) float64 {
	return 75 * (float64(width) / 128) * (float64(height) / 128)
}

// RemoveNoise sets prob to zero if it sums to less than minSum, and returns
// whether it did. The notebook does this to a prediction before the threshold.
func RemoveNoise(prob []float32, minSum float64) bool {
	if Sum(prob) >= minSum {
		return false
	}
	clear(prob)
	return true
}

// Sum returns the sum of the probabilities, in float64 and always in the same
// order. The notebook sums in float32, so its sum can be on the other side of a
// limit that lies within about 1e-6 of the sum.
func Sum(prob []float32) float64 {
	var s [4]float64 // four accumulators break the dependency between additions
	for ; len(prob) >= 4; prob = prob[4:] {
		s[0] += float64(prob[0])
		s[1] += float64(prob[1])
		s[2] += float64(prob[2])
		s[3] += float64(prob[3])
	}
	for _, p := range prob {
		s[0] += float64(p)
	}
	return s[0] + s[1] + (s[2] + s[3])
}

// CountAbove returns the number of pixels predicted at the threshold.
func CountAbove(prob []float32, threshold float64) int {
	n, thr := 0, float32(threshold)
	for _, p := range prob {
		if p > thr {
			n++
		}
	}
	return n
}

// An Overlap holds the pixel counts of one image, from which its scores are
// computed.
type Overlap struct {
	Both      int // predicted and in the target: TP
	Predicted int // TP+FP
	Target    int // TP+FN
}

// Compare counts an image's pixels of a class at a threshold, after the removal of
// noise; prob is the probability of that class. It panics if prob and target differ
// in length.
func Compare(prob []float32, target []uint8, class uint8, threshold float64, noise Noise) Overlap {
	mustMatch(len(prob), len(target))
	var o Overlap
	thr := float32(threshold)
	for i, p := range prob {
		if target[i] == class {
			o.Target++
			if p > thr {
				o.Both++
			}
		}
		if p > thr {
			o.Predicted++
		}
	}
	if float64(o.Predicted) < noise.MinPixels || noise.MinSum > 0 && Sum(prob) < noise.MinSum {
		o.Both, o.Predicted = 0, 0
	}
	return o
}

// CompareMasks counts the pixels of a class in a predicted mask and a target, both
// of class indices. It panics if they differ in length.
func CompareMasks(predicted, target []uint8, class uint8) Overlap {
	mustMatch(len(predicted), len(target))
	var o Overlap
	for i, p := range predicted {
		if target[i] == class {
			o.Target++
			if p == class {
				o.Both++
			}
		}
		if p == class {
			o.Predicted++
		}
	}
	return o
}

// Dice returns 2TP/(2TP+FP+FN), in [0, 1]; 1 if both masks are empty.
//
// Source: L. R. Dice, Ecology 26 (1945). The empty rule is the notebook's
// dice_overall.
func (o Overlap) Dice() float64 {
	if o.Predicted+o.Target == 0 {
		return 1
	}
	return 2 * float64(o.Both) / float64(o.Predicted+o.Target)
}

// IoU returns TP/(TP+FP+FN), in [0, 1]; 1 if both masks are empty.
//
// Source: P. Jaccard, Bull. Soc. Vaud. Sci. Nat. 37 (1901).
func (o Overlap) IoU() float64 {
	if o.Predicted+o.Target == 0 {
		return 1
	}
	return float64(o.Both) / float64(o.Predicted+o.Target-o.Both)
}

// kernelEps keeps the notebook's training metric from dividing by 0. In
// float32, adding it to a count above 0 changes nothing, so it matters only if
// TP is 0.
const kernelEps = float32(1e-8)

// KernelDice returns the notebook's training metric of one image, equal to the
// bit: Dice in float32, with 1e-8 added to the numerator and to the
// denominator.
func (o Overlap) KernelDice() float32 {
	intersect, union := float32(o.Both), float32(o.Predicted+o.Target)
	return (2*intersect + kernelEps) / (union + kernelEps)
}

// KernelIoU returns the notebook's training metric with iou=True; see KernelDice.
func (o Overlap) KernelIoU() float32 {
	intersect, union := float32(o.Both), float32(o.Predicted+o.Target)
	return (intersect + kernelEps) / (union - intersect + kernelEps)
}

// A Mean averages a score over batches, weighted by their number of images, as
// fastai's AverageMetric does. The zero Mean is empty.
type Mean struct {
	Total  float64 // score times images
	Images int
}

// Add adds the mean score of a batch of that many images.
func (m *Mean) Add(score float64, images int) {
	m.Total += score * float64(images)
	m.Images += images
}

// Merge adds the scores of another Mean.
func (m *Mean) Merge(o Mean) {
	m.Total += o.Total
	m.Images += o.Images
}

// Value returns the mean, NaN if there was no image.
func (m Mean) Value() float64 {
	if m.Images == 0 {
		return math.NaN()
	}
	return m.Total / float64(m.Images)
}

func mustMatch(a, b int) {
	if a != b {
		panic(fmt.Errorf("metric: the prediction has %d pixels, the target %d", a, b))
	}
}

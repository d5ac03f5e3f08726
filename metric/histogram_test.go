package metric

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// slowCurve walks down the sorted probabilities, equal ones together, and returns
// average precision and best Dice.
func slowCurve(prob []float32, target []uint8) (ap, dice float64) {
	order := make([]int, len(prob))
	positives := 0
	for i := range order {
		order[i] = i
		positives += int(target[i])
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(prob[b], prob[a]) })
	hits, before := 0, 0
	for n, i := range order {
		hits += int(target[i])
		if n+1 < len(order) && prob[order[n+1]] == prob[i] {
			continue
		}
		ap += float64(hits-before) / float64(positives) * float64(hits) / float64(n+1)
		before = hits
		dice = max(dice, 2*float64(hits)/float64(n+1+positives))
	}
	return ap, dice
}

// Scores are exact for rounded probabilities, and lie within the bounds for those
// that were rounded.
func TestHistogramBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	widest := 0.0
	for range 400 {
		n := 1 + rng.IntN(400)
		prob, rounded, target := make([]float32, n), make([]float32, n), make([]uint8, n)
		// A narrow range puts many pixels into one bin.
		low, width := rng.Float32()*0.9, []float32{0.0005, 0.005, 0.1}[rng.IntN(3)]
		for i := range prob {
			if rng.IntN(3) == 0 {
				target[i] = 1
			}
			prob[i] = low + width*(rng.Float32()+0.3*float32(target[i]))/1.3
			rounded[i] = float32(math.Floor(float64(prob[i])*4096) / 4096)
		}
		target[rng.IntN(n)] = 1
		var h Histogram
		h.Add(prob, target, 1)
		ap := h.AveragePrecision()
		threshold, dice := h.BestDice()

		wantAP, wantDice := slowCurve(rounded, target)
		require.InDelta(t, wantAP, ap.Value, 1e-12)
		require.InDelta(t, wantDice, dice.Value, 1e-12)
		require.Equal(t, dice.Value, Compare(rounded, target, 1, math.Nextafter(threshold, 0)-1e-6, Noise{}).Dice())

		trueAP, trueDice := slowCurve(prob, target)
		require.LessOrEqual(t, ap.Low, trueAP+1e-12)
		require.GreaterOrEqual(t, ap.High, trueAP-1e-12)
		require.LessOrEqual(t, dice.Low, trueDice+1e-12)
		require.GreaterOrEqual(t, dice.High, trueDice-1e-12)
		require.LessOrEqual(t, ap.Low, ap.Value+1e-12)
		require.GreaterOrEqual(t, ap.High, ap.Value-1e-12)
		if width == 0.1 {
			widest = max(widest, ap.High-ap.Low)
		}
	}
	assert.Less(t, widest, 0.5, "over 400 bins the bounds tell something")
}

func TestHistogramMerge(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 18))
	probs, targets := randomImages(rng, 20, Thresholds())
	var whole, a, b Histogram
	for i := range probs {
		whole.Add(probs[i], targets[i], 1)
		part := &a
		if rng.IntN(2) == 0 {
			part = &b
		}
		part.Add(probs[i], targets[i], 1)
	}
	b.Merge(&a)
	assert.Equal(t, whole, b)
	in, out := whole.Pixels()
	n := 0
	for _, p := range probs {
		n += len(p)
	}
	assert.EqualValues(t, n, in+out)
}

func TestHistogramEmpty(t *testing.T) {
	var h Histogram
	h.Add([]float32{0.1, 0.9}, []uint8{0, 2}, 1)
	assert.True(t, math.IsNaN(h.AveragePrecision().Value))
	threshold, dice := h.BestDice()
	assert.True(t, math.IsNaN(threshold) && math.IsNaN(dice.Value))
}

func TestCalibration(t *testing.T) {
	var h Histogram
	// By hand: four pixels of 0.25, one of them in the target: as it should be. Two of
	// 0.75 and one of 1, all in the target. NaN and -1 count as 0, 7 as 1.
	h.Add([]float32{0.25, 0.25, 0.25, 0.25, 0.75, 0.75, 1, float32(math.NaN()), -1, 7}, []uint8{1, 0, 0, 0, 1, 1, 1, 0, 0, 2}, 1)
	bins, err := h.Calibration(2)
	require.NoError(t, err)
	const half = 0.5 / 4096 // the middle of a bin
	assert.Equal(t, []Bin{
		{Low: 0, High: 0.5, Pixels: 6, InTarget: 1, Mean: (4*(0.25+half) + 2*half) / 6},
		{Low: 0.5, High: 1, Pixels: 4, InTarget: 3, Mean: (2*(0.75+half) + 2) / 4},
	}, bins)
	assert.InDelta(t, (math.Abs(1-(1+6*half))+math.Abs(3-(3.5+2*half)))/10, CalibrationError(bins), 1e-15)

	bins, err = h.Calibration(3)
	require.NoError(t, err)
	assert.Equal(t, []int64{6, 0, 4}, []int64{bins[0].Pixels, bins[1].Pixels, bins[2].Pixels})
	assert.Equal(t, bins[0].High, bins[1].Low)
	assert.True(t, math.IsNaN(bins[1].Mean))
	for _, n := range []int{0, -1, 4097} {
		_, err := h.Calibration(n)
		assert.ErrorContains(t, err, "want 1 to 4096")
	}
}

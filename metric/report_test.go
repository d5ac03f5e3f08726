package metric

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Three negatives, one with a false alarm; two positives, one missed.
var fiveImages = []Overlap{
	{0, 0, 0},
	{0, 7, 0},
	{3, 4, 6},
	{0, 0, 0},
	{0, 0, 9},
}

func TestSummarize(t *testing.T) {
	r := Summarize(fiveImages, nil)
	assert.Equal(t, Parts{
		Dice:        (1 + 0 + 0.6 + 1 + 0) / 5,
		Negatives:   3,
		Positives:   2,
		Specificity: 2. / 3, DicePositive: 0.3,
	}, r.Parts)
	assert.InDelta(t, (1+0+3./7+1+0)/5, r.IoU, 1e-15)
	assert.InDelta(t, 3./14, r.IoUPositive, 1e-15)
	assert.Equal(t, 0.5, r.Sensitivity)
	assert.Equal(t, 0.6, r.AllEmpty())
	assert.Zero(t, r.Interval)
}

// The identity of the report holds on random images, up to rounding.
func TestDiceIsTheSumOfItsParts(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 300 {
		images := make([]Overlap, 1+rng.IntN(50))
		for i := range images {
			if rng.IntN(3) > 0 {
				images[i].Target = rng.IntN(100)
			}
			if rng.IntN(3) > 0 {
				images[i].Predicted = rng.IntN(100)
			}
			images[i].Both = rng.IntN(min(images[i].Target, images[i].Predicted) + 1)
		}
		r := Summarize(images, nil)
		pNeg := r.AllEmpty()
		require.InDelta(t, r.Dice, pNeg*r.Specificity+(1-pNeg)*r.DicePositive, 1e-15)
	}
}

func TestReportText(t *testing.T) {
	r := Summarize(fiveImages, nil)
	assert.Equal(t, `Dice              0.5200  thresholds chosen beforehand
  = 0.6000 * 0.6667  share of negatives (3) * case specificity
  + 0.4000 * 0.3000  share of positives (2) * their Dice
nothing at all    0.6000  what predicting nothing would score
IoU               0.4857  on positives 0.2143
case sensitivity  0.5000  positives with anything predicted`, r.String())
	assert.Equal(t, "Dice 0.5200 = 0.6000·0.6667 (specificity, 3 negatives) + 0.4000·0.3000 (Dice, 2 positives); predicting nothing: 0.6000", r.Parts.String())
	r.Interval = Interval{0.2, 0.8, 0.95}
	assert.Contains(t, r.String(), "Dice              0.5200  [0.2000, 0.8000] with probability 0.95  thresholds chosen beforehand\n")
	r.Chosen, r.Class = ChosenOnSame, "left lung"
	assert.Contains(t, r.String(), "left lung\nDice              0.5200  [0.2000, 0.8000] with probability 0.95  thresholds chosen on these same images, which flatters\n")
	none := Summarize(nil, &ReportOptions{Rand: rand.New(rand.NewPCG(1, 1))})
	assert.Equal(t, "no images", none.String())
	assert.Equal(t, "no images", none.Parts.String())
	assert.True(t, math.IsNaN(none.Dice))
}

// A part without images is not printed as a product of zeros.
func TestReportWithoutNegativesOrPositives(t *testing.T) {
	r := Summarize(fiveImages[2:3], nil)
	assert.Equal(t, `Dice              0.6000  thresholds chosen beforehand
  = 1.0000 * 0.6000  share of positives (1) * their Dice
nothing at all    0.0000  what predicting nothing would score
IoU               0.4286  on positives 0.4286
case sensitivity  1.0000  positives with anything predicted`, r.String())
	assert.Equal(t, "Dice 0.6000 = 1.0000·0.6000 (Dice, 1 positives); predicting nothing: 0.0000", r.Parts.String())

	r = Summarize(fiveImages[:2], &ReportOptions{Chosen: ChosenOnOthers})
	assert.Equal(t, `Dice              0.5000  thresholds chosen for each fold on the other folds
  = 1.0000 * 0.5000  share of negatives (2) * case specificity
nothing at all    1.0000  what predicting nothing would score
IoU               0.5000`, r.String())
	assert.Equal(t, "Dice 0.5000 = 1.0000·0.5000 (specificity, 2 negatives); predicting nothing: 1.0000", r.Parts.String())
}

func TestBootstrap(t *testing.T) {
	// 400 images that score 0 or 1 with equal frequency: the mean of a sample has
	// the standard deviation sqrt(1/4/400) = 0.025.
	images := make([]Overlap, 400)
	for i := range 200 {
		images[i].Predicted = 1
	}
	draw := func(groups []string, level float64) Interval {
		return Summarize(images, &ReportOptions{Rand: rand.New(rand.NewPCG(1, 2)), Groups: groups, Level: level, Resamples: 4000}).Interval
	}
	i := draw(nil, 0)
	assert.Equal(t, 0.95, i.Level)
	assert.InDelta(t, 0.5-1.96*0.025, i.Low, 0.006)
	assert.InDelta(t, 0.5+1.96*0.025, i.High, 0.006)
	assert.Equal(t, i, draw(nil, 0.95), "same seed, same interval")

	i = draw(nil, 0.6827)
	assert.InDelta(t, 0.5-0.025, i.Low, 0.004)
	assert.InDelta(t, 0.5+0.025, i.High, 0.004)

	// Four images of each patient, all alike: as much evidence as 100 images.
	groups := make([]string, 400)
	for i := range groups {
		groups[i] = string(rune('A' + i/4))
	}
	i = draw(groups, 0.95)
	assert.InDelta(t, 0.5-1.96*0.05, i.Low, 0.012)
	assert.InDelta(t, 0.5+1.96*0.05, i.High, 0.012)

	assert.Panics(t, func() { draw(groups[:3], 0.95) })
	assert.Panics(t, func() { draw(nil, 1.5) })
}

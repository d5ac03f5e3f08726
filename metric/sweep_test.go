package metric

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/internal/golden"
)

func TestThresholds(t *testing.T) {
	// np.arange(0.01, 1, 0.01)[[0, 5, 6, 28, 34, 98]], numpy 1.24.2
	got := Thresholds()
	require.Len(t, got, 99)
	for i, want := range map[int]float64{0: 0.01, 5: 0.060000000000000005, 6: 0.06999999999999999, 28: 0.29000000000000004, 34: 0.35000000000000003, 98: 0.99} {
		assert.Equal(t, want, got[i], i)
	}
	assert.Equal(t, golden.Float64s(t, golden.Tensors(t, "b6_metrics/metrics.safetensors"), "sweep.thrs"), got)
}

// slowSweep is the mean Dice at each threshold, an image at a time, a threshold
// at a time, summed as rationals.
func slowSweep(probs [][]float32, targets [][]uint8, thresholds []float64, noise Noise) []Parts {
	out := make([]Parts, len(thresholds))
	for k, thr := range thresholds {
		var negatives, correct, positives int
		all, positive := new(big.Rat), new(big.Rat)
		for i, p := range probs {
			d := Compare(p, targets[i], 1, thr, noise)
			score := new(big.Rat).SetFloat64(d.Dice())
			all.Add(all, score)
			if d.Target == 0 {
				negatives++
				if d.Predicted == 0 {
					correct++
				}
			} else {
				positives++
				positive.Add(positive, score)
			}
		}
		sum, _ := all.Float64()
		pos, _ := positive.Float64()
		out[k] = Parts{Dice: sum / float64(len(probs)), Negatives: negatives, Positives: positives}
		if negatives > 0 {
			out[k].Specificity = float64(correct) / float64(negatives)
		}
		if positives > 0 {
			out[k].DicePositive = pos / float64(positives)
		}
	}
	return out
}

// randomImages draws images with all that matters: probabilities on the
// thresholds themselves and next to them, outside [0, 1], NaN; empty targets,
// empty predictions.
func randomImages(rng *rand.Rand, n int, thresholds []float64) (probs [][]float32, targets [][]uint8) {
	for range n {
		pixels := 1 + rng.IntN(300)
		p, y := make([]float32, pixels), make([]uint8, pixels)
		blank, empty, scale := rng.IntN(4) == 0, rng.IntN(2) == 0, rng.Float32()
		for i := range p {
			switch rng.IntN(6) {
			case 0:
				p[i] = float32(thresholds[rng.IntN(len(thresholds))])
			case 1:
				p[i] = math.Nextafter32(float32(thresholds[rng.IntN(len(thresholds))]), float32(rng.IntN(2)))
			case 2:
				p[i] = []float32{0, 1, -1, 2, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))}[rng.IntN(7)]
			default:
				p[i] = rng.Float32() * scale
			}
			if blank {
				p[i] = 0
			}
			if !empty && rng.IntN(3) == 0 {
				y[i] = 1
			} else if rng.IntN(3) == 0 {
				y[i] = 2 + uint8(rng.IntN(254)) // other classes
			}
		}
		probs, targets = append(probs, p), append(targets, y)
	}
	return probs, targets
}

func TestSweepIsTheSlowLoop(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 40 {
		thresholds := Thresholds()
		if round%4 == 0 { // any, with repetitions
			thresholds = []float64{0, 0, 0.3, 0.3, math.Nextafter(0.3, 1), 0.7501, 1}[rng.IntN(4):]
		}
		noise := []Noise{{}, {MinPixels: 20.5}, {MinSum: 30}, {MinPixels: 12, MinSum: 12}}[rng.IntN(4)]
		probs, targets := randomImages(rng, 1+rng.IntN(30), thresholds)
		want := slowSweep(probs, targets, thresholds, noise)

		whole, folds := NewSweep(thresholds, noise), []*Sweep{NewSweep(thresholds, noise), NewSweep(thresholds, noise), NewSweep(thresholds, noise)}
		for _, i := range rng.Perm(len(probs)) {
			whole.Add(probs[i], targets[i], 1)
			folds[rng.IntN(3)].Add(probs[i], targets[i], 1)
		}
		pooled := NewSweep(thresholds, noise)
		for _, f := range folds {
			require.NoError(t, pooled.Merge(f))
		}
		for k := range thresholds {
			require.Equal(t, want[k], whole.At(k), "round %d, threshold %v", round, thresholds[k])
			require.Equal(t, want[k], pooled.At(k), "round %d, threshold %v", round, thresholds[k])
		}
		require.Equal(t, len(probs), pooled.Images())
	}
}

func TestSweepGoldens(t *testing.T) {
	for _, c := range goldenCases(t) {
		s := NewSweep(nil, Noise{MinSum: NoiseArea(c.size, c.size)})
		for i, p := range c.prob {
			s.Add(p, c.targets[i], 1)
		}
		// torch: float32 scores, averaged in float32.
		worst := golden.Close(t, "dice by threshold", s.Dice(), c.dices, 1e-7)
		thr, at := s.Best()
		assert.Equal(t, c.sweep.BestThr, thr)
		assert.InDelta(t, c.sweep.BestDice, at.Dice, 6e-8)
		assert.Equal(t, c.sweep.BestThr, s.Thresholds()[c.sweep.ArgMax])
		t.Logf("%d: worst error %.2g", c.size, worst)
		for k, want := range slowSweep(c.prob, c.targets, s.Thresholds(), Noise{MinSum: NoiseArea(c.size, c.size)}) {
			assert.Equal(t, want, s.At(k))
		}
	}
}

func TestBestIsTheFirst(t *testing.T) {
	s := NewSweep(nil, Noise{})
	// Perfect from 0.30 up to 0.49: the background is at 0.295, the target at 0.5.
	s.Add([]float32{0.295, 0.5, 0.5}, mask(".##"), 1)
	thr, at := s.Best()
	assert.Equal(t, 0.3, thr)
	assert.Equal(t, 1.0, at.Dice)

	thr, at = NewSweep([]float64{0.5, 0.6}, Noise{}).Best()
	assert.Equal(t, 0.5, thr)
	assert.True(t, math.IsNaN(at.Dice))
}

func TestSweepErrors(t *testing.T) {
	for _, thresholds := range [][]float64{{}, {0.5, 0.4}, {-0.1}, {1.1}, {math.NaN()}} {
		assert.Panics(t, func() { NewSweep(thresholds, Noise{}) }, thresholds)
	}
	s := NewSweep(nil, Noise{})
	assert.Panics(t, func() { s.Add(make([]float32, 3), make([]uint8, 4), 1) })
	assert.ErrorContains(t, s.Merge(NewSweep(nil, Noise{MinSum: 3})), "must be the same")
	assert.ErrorContains(t, s.Merge(NewSweep([]float64{0.5}, Noise{})), "must be the same")
}

func TestExactSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var s, half exactSum
	want := new(big.Rat)
	for i := range 2000 {
		v := rng.Float64()
		switch rng.IntN(3) {
		case 0:
			v = 2 / float64(2+rng.IntN(1<<32))
		case 1:
			v = math.Ldexp(v, rng.IntN(16)) // as distances are
		}
		s.add(exact(v))
		want.Add(want, new(big.Rat).SetFloat64(v))
		if i == 1000 {
			half = s
		}
		sum, _ := want.Float64()
		require.Equal(t, sum, s.float64(), i)
	}
	s.add(exact(0))
	s.add(exactInt(3))
	want.Add(want, big.NewRat(3, 1))
	sum, _ := want.Float64()
	assert.Equal(t, sum/7, s.over(7))

	rest := s
	rest.sub(half)
	rest.add(half)
	assert.Equal(t, s, rest)

	var tiny exactSum
	assert.Zero(t, tiny.float64())
	tiny.add(exact(0x1p-97))
	assert.Zero(t, tiny.float64(), "below the last place")
	tiny.add(exact(0x1p-96))
	assert.Equal(t, 0x1p-96, tiny.float64())
	tiny.add(exact(1))
	assert.Equal(t, 1.0, tiny.over(1))
	for _, v := range []float64{0x1p-43, 0x1.fffffffffffffp-44, 1, 0x1.fffffffffffffp30, 0x1p31} {
		assert.Equal(t, v, exact(v).float64())
	}
	// Halfway between two float64: to the even one, and up if there is anything more.
	for _, tc := range []struct{ v, more, want float64 }{{1, 0, 1}, {1 + 0x1p-52, 0, 1 + 0x1p-51}, {1, 0x1p-96, 1 + 0x1p-52}} {
		s := exact(tc.v)
		s.add(exact(0x1p-53))
		s.add(exact(tc.more))
		assert.Equal(t, tc.want, s.float64())
	}
}

func BenchmarkSweepAdd(b *testing.B) {
	rng := rand.New(rand.NewPCG(7, 8))
	prob, target := make([]float32, 256*256), make([]uint8, 256*256)
	for i := range prob {
		prob[i] = rng.Float32()
		target[i] = uint8(rng.IntN(2))
	}
	b.Run("one pass, uniform probabilities", func(b *testing.B) {
		s := NewSweep(nil, Noise{MinSum: 300})
		for b.Loop() {
			s.Add(prob, target, 1)
		}
	})
	b.Run("99 passes", func(b *testing.B) {
		for b.Loop() {
			for _, thr := range Thresholds() {
				Compare(prob, target, 1, thr, Noise{MinSum: 300})
			}
		}
	})
}

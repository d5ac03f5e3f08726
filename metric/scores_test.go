package metric

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// randomImage draws an image of some classes, softmax over all of them or a sigmoid
// for each but the background.
func randomImage(rng *rand.Rand, name string, classes int, sigmoid bool) *Image {
	w, h := 1+rng.IntN(9), 1+rng.IntN(7)
	im := &Image{Name: name, Width: w, Height: h, Target: make([]uint8, w*h), Spacing: Spacing{X: 0.5, Y: 2}}
	channels := classes + 1
	if sigmoid {
		channels, im.First = classes, 1
	}
	im.Prob = make([]float32, channels*w*h)
	peak := rng.IntN(channels)
	for i := range im.Prob {
		im.Prob[i] = rng.Float32() * 0.8
		if i/(w*h) == peak {
			im.Prob[i] += 0.2
		}
	}
	if rng.IntN(3) > 0 {
		for i := range im.Target {
			im.Target[i] = uint8(rng.IntN(classes + 1))
		}
	}
	return im
}

// slowScores goes over the pixels of each image, one class and one score at a time.
func slowScores(images []*Image, class uint8, opt ScoreOptions) map[string]float64 {
	means := map[string]*Mean{"dice": {}, "iou": {}, "case_sensitivity": {}, "case_specificity": {}, "hausdorff95": {}, "surface_distance": {}}
	pixels := map[string]*Mean{"pixel_sensitivity": {}, "pixel_specificity": {}}
	sweep := make([]Mean, 99)
	var probs []float32
	var targets []uint8
	for _, im := range images {
		area := im.Width * im.Height
		prob := im.Prob[(int(class)-im.First)*area:][:area]
		predicted, target := make([]uint8, area), make([]uint8, area)
		for i := range area {
			isBest := true
			for c := 0; c*area < len(im.Prob); c++ {
				p := im.Prob[c*area+i]
				if p > prob[i] || p == prob[i] && c+im.First < int(class) { // of a tie the first
					isBest = false
				}
			}
			if opt.Decision == ByArgmax && isBest || opt.Decision == ByThreshold && prob[i] > float32(opt.Threshold) {
				predicted[i] = 1
			}
			if im.Target[i] == class {
				target[i] = 1
			}
			if target[i] == 1 {
				pixels["pixel_sensitivity"].Add(float64(predicted[i]), 1)
			} else {
				pixels["pixel_specificity"].Add(1-float64(predicted[i]), 1)
			}
		}
		o := CompareMasks(predicted, target, 1)
		means["dice"].Add(o.Dice(), 1)
		means["iou"].Add(o.IoU(), 1)
		if o.Target > 0 {
			means["case_sensitivity"].Add(min(float64(o.Predicted), 1), 1)
		} else {
			means["case_specificity"].Add(1-min(float64(o.Predicted), 1), 1)
		}
		d, _ := SurfaceDistances(predicted, target, 1, im.Width, im.Height, im.Spacing)
		if !math.IsNaN(d.Mean) {
			means["hausdorff95"].Add(d.Hausdorff95, 1)
			means["surface_distance"].Add(d.Mean, 1)
		}
		for k, thr := range Thresholds() {
			sweep[k].Add(Compare(prob, target, 1, thr, Noise{}).Dice(), 1)
		}
		for i := range prob {
			probs = append(probs, float32(math.Floor(float64(prob[i])*4096)/4096))
			targets = append(targets, target[i])
		}
	}
	out := map[string]float64{"distance_images": float64(means["hausdorff95"].Images), "average_precision": math.NaN()}
	for name, m := range means {
		out[name] = m.Value()
	}
	for name, m := range pixels {
		out[name] = m.Value()
	}
	best := 0
	for k := range sweep {
		if sweep[k].Value() > sweep[best].Value()+1e-12 {
			best = k
		}
	}
	out["best_dice"], out["best_threshold"] = sweep[best].Value(), Thresholds()[best]
	if slices.Contains(targets, 1) {
		out["average_precision"], _ = slowCurve(probs, targets)
	}
	return out
}

var scoreNames = []string{
	"dice", "iou", "pixel_sensitivity", "pixel_specificity", "case_sensitivity", "case_specificity",
	"average_precision", "best_dice", "best_threshold", "hausdorff95", "surface_distance", "distance_images",
}

func same(t *testing.T, want, got float64, message string) {
	t.Helper()
	if math.IsNaN(want) {
		require.True(t, math.IsNaN(got), "%s: want NaN, got %v", message, got)
		return
	}
	require.InDelta(t, want, got, 1e-11, message)
}

func TestScoresAreTheSlowOnes(t *testing.T) {
	rng := rand.New(rand.NewPCG(35, 36))
	for round := range 60 {
		classes := 1 + rng.IntN(3)
		names := []string{"heart", "left lung", "right lung"}[:classes]
		opt := ScoreOptions{Classes: names, Decision: ByArgmax, Curves: true, Distances: true}
		if rng.IntN(2) == 0 {
			opt.Decision, opt.Threshold = ByThreshold, 0.5
		}
		sigmoid := opt.Decision == ByThreshold && rng.IntN(2) == 0
		var images []*Image
		for i := range 1 + rng.IntN(8) {
			images = append(images, randomImage(rng, fmt.Sprint(i), classes, sigmoid))
		}
		make := func() *Scores {
			s, err := NewScores(opt)
			require.NoError(t, err)
			return s
		}
		whole, a, b := make(), make(), make()
		for _, i := range rng.Perm(len(images)) {
			require.NoError(t, whole.Add(images[i]))
		}
		for _, im := range images {
			part := a
			if rng.IntN(2) == 0 {
				part = b
			}
			require.NoError(t, part.Add(im))
		}
		require.NoError(t, b.Merge(a))
		values, merged := whole.Values(), b.Values()
		require.Len(t, merged, len(values))
		for i, v := range values {
			require.Equal(t, v.Name, merged[i].Name)
			require.Equal(t, math.Float64bits(v.Value), math.Float64bits(merged[i].Value), "merging changes no bit: %s", v.Name)
		}

		var order []string
		for _, score := range scoreNames {
			var mean Mean
			for c, class := range names {
				want := slowScores(images, uint8(c+1), opt)[score]
				name := score
				if classes > 1 {
					name += "/" + class
				}
				same(t, want, values.Get(name), fmt.Sprintf("round %d: %s", round, name))
				if !math.IsNaN(want) {
					mean.Add(want, 1)
				}
			}
			same(t, mean.Value(), values.Get(score), score)
			order = append(order, score)
			if classes > 1 {
				for _, class := range names {
					order = append(order, score+"/"+class)
				}
			}
		}
		var got []string
		for _, v := range values {
			got = append(got, v.Name)
		}
		require.Equal(t, order, got)

		whole.Reset()
		for _, v := range whole.Values() {
			if v.Name != "distance_images" && (len(v.Name) < 16 || v.Name[:16] != "distance_images/") {
				require.True(t, math.IsNaN(v.Value), v.Name)
			}
		}
	}
}

// If class 1 is predicted where the target is class 2, both classes are wrong
// there.
func TestClassesKeepTheirIdentity(t *testing.T) {
	s, err := NewScores(ScoreOptions{Classes: []string{"a", "b"}, Decision: ByArgmax})
	require.NoError(t, err)
	im := &Image{Width: 3, Height: 1, Prob: []float32{0.1, 0.1, 0.8, 0.8, 0.8, 0.1, 0.1, 0.1, 0.1}, Target: []uint8{2, 2, 0}}
	require.NoError(t, s.Add(im))
	v := s.Values()
	assert.Equal(t, 0.0, v.Get("dice/a"))
	assert.Equal(t, 0.0, v.Get("dice/b"))
	assert.Equal(t, 0.0, v.Get("case_specificity/a"))
	assert.Equal(t, 0.0, v.Get("case_sensitivity/b"))
	assert.Equal(t, 1.0/3, v.Get("pixel_specificity/a"))
	assert.True(t, math.IsNaN(v.Get("pixel_sensitivity/a")))
	mask := make([]uint8, 3)
	im.Argmax(mask)
	assert.Equal(t, []uint8{1, 1, 0}, mask)
}

func TestScoresErrors(t *testing.T) {
	for _, tc := range []struct {
		opt  ScoreOptions
		want string
	}{
		{ScoreOptions{}, "0 classes"},
		{ScoreOptions{Classes: []string{"a"}, Threshold: 1}, "threshold 1"},
		{ScoreOptions{Classes: []string{"a"}, Threshold: math.NaN()}, "threshold NaN"},
		{ScoreOptions{Classes: []string{"a"}, Decision: 2}, "decision 2"},
		{ScoreOptions{Classes: []string{"a"}, Decision: ByArgmax, Threshold: 0.5}, "no meaning with ByArgmax"},
	} {
		_, err := NewScores(tc.opt)
		assert.ErrorContains(t, err, tc.want)
	}
	s, err := NewScores(ScoreOptions{Classes: []string{"a"}, Decision: ByArgmax, Distances: true})
	require.NoError(t, err)
	for _, tc := range []struct {
		im   Image
		want string
	}{
		{Image{Name: "x", Width: 2, Height: 1, Prob: make([]float32, 4), Target: make([]uint8, 1)}, `image "x" of 2x1 has 4 probabilities and 1 target pixels`},
		{Image{Width: 2, Height: 1, Prob: make([]float32, 3), Target: make([]uint8, 2)}, "3 probabilities"},
		{Image{Width: -1, Height: -1, Prob: make([]float32, 3), Target: make([]uint8, 1)}, "of -1x-1"},
		{Image{Width: 1, Height: 1, Prob: make([]float32, 1), Target: make([]uint8, 1), First: 2}, "begins with class 2"},
		{Image{Width: 1, Height: 1, Prob: make([]float32, 3), Target: make([]uint8, 1)}, "classes 0 to 2; the scores are of 1 to 1"},
		{Image{Width: 1, Height: 1, Prob: make([]float32, 2), Target: []uint8{2}}, "target of class 2"},
		{Image{Width: 1, Height: 1, Prob: make([]float32, 1), Target: make([]uint8, 1), First: 1}, "ByArgmax needs them"},
		{Image{Width: 1, Height: 1, Prob: []float32{0, 1}, Target: []uint8{1}, Spacing: Spacing{X: -1}}, "pixel spacing -1"},
	} {
		assert.ErrorContains(t, s.Add(&tc.im), tc.want)
	}
	o, err := NewScores(ScoreOptions{Classes: []string{"b"}, Decision: ByArgmax, Distances: true})
	require.NoError(t, err)
	assert.ErrorContains(t, s.Merge(o), "must be the same")
}

func TestMeanOf(t *testing.T) {
	m := MeanOf("area", func(im *Image) (float64, error) {
		switch n := len(im.Target); n {
		case 1:
			return math.NaN(), nil
		case 2:
			return 0, errors.New("not two")
		default:
			return float64(n), nil
		}
	})
	add := func(n int) error {
		return m.Add(&Image{Name: "x", Width: n, Height: 1, Prob: make([]float32, n), Target: make([]uint8, n)})
	}
	assert.True(t, math.IsNaN(m.Values()[0].Value))
	for _, n := range []int{3, 1, 6} {
		require.NoError(t, add(n))
	}
	assert.Equal(t, Values{{"area", 4.5}}, m.Values())
	assert.EqualError(t, add(2), `area of image "x": not two`)
	assert.ErrorContains(t, add(0), "of 0x1")
	m.Reset()
	assert.True(t, math.IsNaN(m.Values()[0].Value))
}

// The notebook's training metric, as an epoch's value: golden, see goldenCases.
func TestKernelDiceMetric(t *testing.T) {
	for _, c := range goldenCases(t) {
		m := KernelDice(KernelThreshold, Noise{MinPixels: NoiseArea(c.size, c.size)})
		for i, p := range c.prob {
			require.NoError(t, m.Add(&Image{Width: c.size, Height: c.size, Prob: append(slices.Clone(c.other[i]), p...), Target: c.targets[i]}))
		}
		assert.Equal(t, "dice", m.Values()[0].Name)
		assert.InDelta(t, c.want["public.dice"].Batch, m.Values()[0].Value, 6e-8) // torch's mean of float32
	}
	m := KernelDice(0.2, Noise{})
	assert.ErrorContains(t, m.Add(&Image{Width: 1, Height: 1, Prob: make([]float32, 1), Target: make([]uint8, 1)}), "no probabilities of class 1")
}

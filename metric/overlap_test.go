package metric

import (
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/internal/golden"
)

// mask makes a mask of '.' and '#'; spaces are for the eye.
func mask(s string) (m []uint8) {
	for _, c := range s {
		switch c {
		case '.':
			m = append(m, 0)
		case '#':
			m = append(m, 1)
		}
	}
	return m
}

func TestScores(t *testing.T) {
	for _, tc := range []struct {
		name, predicted, target string
		want                    Overlap
		dice, iou               float64 // by hand
	}{
		{"both empty", "....", "....", Overlap{}, 1, 1},
		{"false alarm", ".#..", "....", Overlap{0, 1, 0}, 0, 0},
		{"missed", "....", ".##.", Overlap{0, 0, 2}, 0, 0},
		{"beside it", "#...", ".##.", Overlap{0, 1, 2}, 0, 0},
		{"one of two", ".#..", ".##.", Overlap{1, 1, 2}, 2. / 3, 1. / 2},
		{"one of two and one more", "##..", ".##.", Overlap{1, 2, 2}, 1. / 2, 1. / 3},
		{"right", ".##.", ".##.", Overlap{2, 2, 2}, 1, 1},
	} {
		target := mask(tc.target)
		o := CompareMasks(mask(tc.predicted), target, 1)
		assert.Equal(t, tc.want, o, tc.name)
		assert.Equal(t, tc.dice, o.Dice(), tc.name)
		assert.Equal(t, tc.iou, o.IoU(), tc.name)
		assert.InDelta(t, tc.dice, o.KernelDice(), 1e-7, tc.name) // half a unit in the last place of a float32 near 1
		assert.InDelta(t, tc.iou, o.KernelIoU(), 1e-7, tc.name)

		prob := make([]float32, len(target))
		for i, p := range mask(tc.predicted) {
			prob[i] = 0.25 + 0.5*float32(p)
			target[i] *= 3
		}
		assert.Equal(t, tc.want, Compare(prob, target, 3, 0.5, Noise{}), tc.name)
		assert.Equal(t, Overlap{0, tc.want.Predicted, 0}, Compare(prob, target, 2, 0.5, Noise{}), "%s: another class", tc.name)
	}
	assert.PanicsWithError(t, "metric: the prediction has 2 pixels, the target 3", func() { CompareMasks(make([]uint8, 2), make([]uint8, 3), 1) })
	assert.PanicsWithError(t, "metric: the prediction has 4 pixels, the target 3", func() { Compare(make([]float32, 4), make([]uint8, 3), 1, 0.5, Noise{}) })
}

// The notebook's metric where TP is 0 and where it is not: fastai 1.0.54 on torch
// 1.13.1, the images of these counts in golden case 32 (scripts/b67.py).
func TestKernelMetric(t *testing.T) {
	for _, tc := range []struct {
		o         Overlap
		dice, iou float32
	}{
		{Overlap{}, 1, 1},
		{Overlap{0, 197, 0}, 5.0761419373435146e-11, 5.0761419373435146e-11},
		{Overlap{0, 0, 113}, 8.849557198153946e-11, 8.849557198153946e-11},
		{Overlap{67, 113, 113}, 0.5929203629493713, 0.42138364911079407},
		{Overlap{0, 0, 4}, 2.4999999848063226e-09, 2.4999999848063226e-09},
		{Overlap{5, 5, 5}, 1, 1},
	} {
		assert.Equal(t, tc.dice, tc.o.KernelDice(), "%+v", tc.o)
		assert.Equal(t, tc.iou, tc.o.KernelIoU(), "%+v", tc.o)
	}
}

func TestThresholdIsStrictAndFloat32(t *testing.T) {
	nan := float32(math.NaN())
	prob := []float32{0, 0.1, 0.2, 0.3, nan, 1}
	target := make([]uint8, 6)
	assert.Equal(t, 2, Compare(prob, target, 1, 0.2, Noise{}).Predicted, "float32(0.2) is not above 0.2")
	assert.Greater(t, float64(float32(0.2)), 0.2, "although it is greater in float64")
	assert.Equal(t, 2, CountAbove(prob, 0.2))
	assert.Equal(t, 0, CountAbove(prob, 1))
	assert.Equal(t, 4, CountAbove(prob, 0))
}

func TestNoise(t *testing.T) {
	prob := []float32{0.9, 0.8, 0.3, 0.25, 0.25} // sum 2.5, four above 0.25 less one
	target := mask("##...")
	all := Overlap{2, 3, 2}
	none := Overlap{0, 0, 2}
	assert.Equal(t, all, Compare(prob, target, 1, 0.25, Noise{}))
	assert.Equal(t, all, Compare(prob, target, 1, 0.25, Noise{MinPixels: 3}), "strictly fewer")
	assert.Equal(t, none, Compare(prob, target, 1, 0.25, Noise{MinPixels: 3.5}))
	assert.Equal(t, all, Compare(prob, target, 1, 0.25, Noise{MinSum: 2.4999}))
	assert.Equal(t, none, Compare(prob, target, 1, 0.25, Noise{MinSum: 2.5001}))

	kept := append([]float32(nil), prob...)
	assert.False(t, RemoveNoise(kept, 2.4999))
	assert.Equal(t, prob, kept)
	assert.True(t, RemoveNoise(kept, 2.5001))
	assert.Equal(t, make([]float32, 5), kept)

	assert.Equal(t, 300.0, NoiseArea(256, 256))
	assert.Equal(t, 4.6875, NoiseArea(32, 32))
	assert.Equal(t, 150.0, NoiseArea(256, 128))
}

func TestSum(t *testing.T) {
	for n := range 10 {
		prob, want := make([]float32, n), 0.0
		for i := range prob {
			prob[i] = 1 / float32(int(1)<<i) // sums of these are exact
			want += float64(prob[i])
		}
		assert.Equal(t, want, Sum(prob), n)
	}
}

func TestMean(t *testing.T) {
	var m Mean
	assert.True(t, math.IsNaN(m.Value()))
	m.Add(0.5, 16)
	m.Add(0.75, 4)
	assert.Equal(t, (0.5*16+0.75*4)/20, m.Value())
	var o Mean
	o.Add(1, 20)
	m.Merge(o)
	assert.Equal(t, (0.5*16+0.75*4+20)/40, m.Value())
}

// goldenCase is ten images of one size with the results of the notebook's code
// (fastai 1.0.54 on torch 1.13.1).
type goldenCase struct {
	size    int
	prob    [][]float32 // of pneumothorax
	other   [][]float32 // 1 - prob, as softmax gave it: the other reading of the notebook's text
	targets [][]uint8
	want    map[string]goldenScores
	overall map[string][]float64
	sweep   struct {
		BestDice float64   `json:"best_dice"`
		BestThr  float64   `json:"best_thr"`
		ArgMax   int       `json:"argmax"`
		Sums     []float64 `json:"prob_sums"`
		Zeroed   []bool
	}
	counts []int
	dices  []float64
}

type goldenScores struct {
	PerImage []float64 `json:"per_image"`
	Batch    float64
}

func goldenCases(t *testing.T) (cases []goldenCase) {
	tensors := golden.Tensors(t, "b6_metrics/metrics.safetensors")
	var all map[string]any
	golden.JSON(t, "b6_metrics/metrics.json", &all)
	for _, size := range []int{32, 64, 128} {
		key := strconv.Itoa(size)
		c := goldenCase{size: size, want: map[string]goldenScores{}, overall: map[string][]float64{}}
		entry := all[key].(map[string]any)
		for _, name := range []string{"public.dice", "public.iou", "seed.dice", "seed.iou"} {
			s := entry[name].(map[string]any)
			c.want[name] = goldenScores{floats(s["per_image"]), s["batch"].(float64)}
		}
		for _, thr := range []string{"0.1", "0.2", "0.5"} {
			c.overall[thr] = floats(entry["dice_overall@"+thr])
		}
		for _, v := range floats(entry["public.count_gt_thr"]) {
			c.counts = append(c.counts, int(v))
		}
		sweep := entry["sweep"].(map[string]any)
		c.sweep.BestDice, c.sweep.BestThr = sweep["best_dice"].(float64), sweep["best_thr"].(float64)
		c.sweep.ArgMax, c.sweep.Sums = int(sweep["argmax"].(float64)), floats(sweep["prob_sums"])
		for _, z := range sweep["zeroed"].([]any) {
			c.sweep.Zeroed = append(c.sweep.Zeroed, z.(bool))
		}
		c.dices = golden.Float64s(t, tensors, key+".sweep.dices")

		probs, logits, targets := golden.Float64s(t, tensors, key+".probs1"), golden.Float64s(t, tensors, key+".logits"), golden.Float64s(t, tensors, key+".targets")
		n := size * size
		for i := range 10 {
			p, o, y := make([]float32, n), make([]float32, n), make([]uint8, n)
			for j := range n {
				p[j] = float32(probs[i*n+j])
				a, b := logits[2*i*n+j], logits[(2*i+1)*n+j]
				o[j] = float32(1 / (1 + math.Exp(b-a)))
				y[j] = uint8(targets[i*n+j])
			}
			c.prob, c.other, c.targets = append(c.prob, p), append(c.other, o), append(c.targets, y)
		}
		cases = append(cases, c)
	}
	return cases
}

func floats(v any) (out []float64) {
	for _, x := range v.([]any) {
		out = append(out, x.(float64))
	}
	return out
}

func TestKernelMetricGoldens(t *testing.T) {
	for _, c := range goldenCases(t) {
		noise := Noise{MinPixels: NoiseArea(c.size, c.size)}
		for channel, probs := range map[string][][]float32{"public": c.prob, "seed": c.other} {
			var dice, iou float64
			for i, p := range probs {
				o := Compare(p, c.targets[i], 1, KernelThreshold, noise)
				require.Equal(t, float32(c.want[channel+".dice"].PerImage[i]), o.KernelDice(), "%d: %s image %d", c.size, channel, i)
				require.Equal(t, float32(c.want[channel+".iou"].PerImage[i]), o.KernelIoU(), "%d: %s image %d", c.size, channel, i)
				dice += float64(o.KernelDice()) / 10
				iou += float64(o.KernelIoU()) / 10
			}
			// torch averages ten float32 in float32: an error of 1 unit, 6e-8.
			assert.InDelta(t, c.want[channel+".dice"].Batch, dice, 6e-8)
			assert.InDelta(t, c.want[channel+".iou"].Batch, iou, 6e-8)
		}
		for i, p := range c.prob {
			assert.Equal(t, c.counts[i], CountAbove(p, KernelThreshold))
			for text, want := range c.overall {
				thr, _ := strconv.ParseFloat(text, 64)
				assert.Equal(t, float32(want[i]), float32(Compare(p, c.targets[i], 1, thr, Noise{}).Dice()), "%d: image %d at %s", c.size, i, text)
			}
			assert.InEpsilon(t, c.sweep.Sums[i], Sum(p), 1e-6, "torch sums up to 16384 float32 in float32")
			assert.Equal(t, c.sweep.Zeroed[i], RemoveNoise(append([]float32(nil), p...), NoiseArea(c.size, c.size)))
		}
	}
}

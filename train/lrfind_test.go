package train_test

import (
	"context"
	"fmt"
	"iter"
	"math"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

// state returns a copy of all parameters and buffers, to be compared to the bit.
func state(t testing.TB, m nn.Module) *checkpoint.File {
	t.Helper()
	f, err := nn.SaveState(m)
	require.NoError(t, err)
	return f
}

func trainer(t testing.TB, m train.Model, opt train.Options) *train.Trainer {
	t.Helper()
	tr, err := train.New(m, opt)
	require.NoError(t, err)
	return tr
}

// fastai 1.0.54's lr_find on the Tiny model, with its own optimizer and with the
// notebook's, whose step does nothing.
func TestFindRateGolden(t *testing.T) {
	want := golden.Tensors(t, "b10_misc/lr_find.safetensors")
	for name, recipe := range map[string]train.Recipe{"default": train.Default, "acc_wrapper": train.Kernel} {
		t.Run(name, func(t *testing.T) {
			model := newTiny(t, nn.Double)
			before := state(t, model)
			points, err := trainer(t, model, train.Options{Recipe: recipe, DType: nn.Double}).
				FindRate(context.Background(), formulaBatches("b3.train", 11, 2, 8, 0.3), nil)
			require.NoError(t, err)
			var rates, losses, smooth []float64
			for _, p := range points {
				rates, losses, smooth = append(rates, p.Rate), append(losses, p.Loss), append(smooth, p.Smooth)
			}
			key := "lr_find." + name
			golden.Close(t, "rates", rates, golden.Float64s(t, want, key+".lrs"), 1e-15)
			// Only the order of sums differs; measured 4e-16 and 1.2e-15.
			a := golden.Close(t, "losses", losses, golden.Float64s(t, want, key+".raw"), 1e-13)
			b := golden.Close(t, "smoothed", smooth, golden.Float64s(t, want, key+".smooth"), 1e-13)
			t.Logf("worst errors: losses %.2g, smoothed %.2g", a, b)
			require.Equal(t, before, state(t, model), "parameters and buffers are restored")
		})
	}
}

// A few of the same points for those who have the repository alone.
func TestFindRate(t *testing.T) {
	points, err := trainer(t, newTiny(t, nn.Double), train.Options{DType: nn.Double}).
		FindRate(context.Background(), formulaBatches("b3.train", 11, 2, 8, 0.3), nil)
	require.NoError(t, err)
	require.Len(t, points, 100)
	for i, want := range map[int]train.RatePoint{
		0:  {1e-07, 0.843501336502946, 0.8435013365029461},
		1:  {1.202264434617413e-07, 0.819999267749822, 0.8316316048094481},
		50: {0.001, 0.8245552423955392, 0.8056318955801727},
		80: {0.25118864315095824, 0.6561311821046143, 0.7417192564222438},
		99: {8.317637711026709, 0.662937024945219, 0.7192579011452892},
	} {
		require.InEpsilon(t, want.Rate, points[i].Rate, 1e-15)
		require.InEpsilon(t, want.Loss, points[i].Loss, 1e-13)
		require.InEpsilon(t, want.Smooth, points[i].Smooth, 1e-13)
	}
}

// golden/b10_misc/misc.json, "lr_find.slice":
// lr_find(start_lr=slice(1e-7,1e-5), end_lr=slice(1e-2,10), num_it=30, stop_div=False)
func TestFindRateGroups(t *testing.T) {
	start, err := train.EvenRates(1e-7, 1e-5, 3)
	require.NoError(t, err)
	end, err := train.EvenRates(1e-2, 10, 3)
	require.NoError(t, err)
	points, err := trainer(t, newTiny(t, nn.Double), train.Options{DType: nn.Double}).
		FindRate(context.Background(), formulaBatches("b3.train", 11, 2, 8, 0.3), &train.FindOptions{Start: start, End: end, Iterations: 30, NoStop: true})
	require.NoError(t, err)
	require.Len(t, points, 30)
	require.InEpsilon(t, 9.999999999999999e-06, points[0].Rate, 1e-15)
	require.InEpsilon(t, 6.3095734448019325, points[29].Rate, 1e-14)
}

// The search ends at the first smoothed loss above four times the least one, or
// that is not a number, and says so by its last point.
func TestFindRateStops(t *testing.T) {
	source := formulaBatches("b3.train", 4, 2, 8, 0.3)
	exploding := &train.FindOptions{Start: train.SameRates(1e-2, 3), End: train.SameRates(1e6, 3)}
	model := newTiny(t, nn.Double)
	tr := trainer(t, model, train.Options{DType: nn.Double})
	before := state(t, model)
	points, err := tr.FindRate(context.Background(), source, exploding)
	require.NoError(t, err)
	require.Less(t, len(points), 100)
	best := math.Inf(1)
	for i, p := range points {
		best = min(best, p.Smooth)
		require.Equal(t, i == len(points)-1, p.Smooth > 4*best, "point %d", i)
	}
	require.Equal(t, before, state(t, model))

	exploding.NoStop = true
	points, err = tr.FindRate(context.Background(), source, exploding)
	require.NoError(t, err)
	require.Len(t, points, 100)
	require.Equal(t, before, state(t, model))

	source[2].Images[17] = float32(math.NaN())
	points, err = tr.FindRate(context.Background(), source, nil)
	require.NoError(t, err)
	require.Len(t, points, 3)
	require.True(t, math.IsNaN(points[2].Smooth))
	require.Equal(t, before, state(t, model))
}

// After an error, too, the model is as it was.
func TestFindRateErrors(t *testing.T) {
	model := newTiny(t, nn.Double)
	before := state(t, model)
	tr := trainer(t, model, train.Options{DType: nn.Double})
	source := formulaBatches("b3.train", 4, 2, 8, 0.3)
	for name, c := range map[string]struct {
		opt    train.FindOptions
		source feed.Source
		want   string
	}{
		"no batches":       {source: batches{}, want: "no training batch"},
		"lying source":     {source: lying{}, want: "yields no batch"},
		"groups":           {opt: train.FindOptions{Start: []float64{1}}, source: source, want: "from 1 to 3 rates for 3 layer groups"},
		"rate zero":        {opt: train.FindOptions{Start: []float64{1, 0, 1}}, source: source, want: "wanted positive"},
		"rate NaN":         {opt: train.FindOptions{End: []float64{1, math.NaN(), 1}}, source: source, want: "wanted positive"},
		"iterations":       {opt: train.FindOptions{Iterations: -1}, source: source, want: "-1 iterations"},
		"class in batch 5": {source: append(append(batches{}, source...), wrongClass(), source[0]), want: "epoch 0: batch 4: libtorch"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tr.FindRate(context.Background(), c.source, &c.opt)
			require.ErrorContains(t, err, c.want)
			require.Equal(t, before, state(t, model))
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	seen := 0
	tr = trainer(t, model, train.Options{DType: nn.Double, Observe: train.Observer{Batch: func(train.BatchInfo) {
		if seen++; seen == 6 {
			cancel()
		}
	}}})
	points, err := tr.FindRate(ctx, source, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "epoch 1: batch 2")
	require.Len(t, points, 6)
	require.Equal(t, before, state(t, model))
}

// lying claims batches and has none.
type lying struct{}

func (lying) Len() int        { return 3 }
func (lying) Batches() int    { return 3 }
func (lying) Name(int) string { return "" }
func (lying) Epoch(int, int) iter.Seq2[*feed.Batch, error] {
	return func(func(*feed.Batch, error) bool) {}
}

// wrongClass is a batch with a class that a network for two does not know.
func wrongClass() *feed.Batch {
	b := *formulaBatches("b3.train", 1, 2, 8, 0.3)[0]
	b.Targets = append([]uint8{}, b.Targets...)
	b.Targets[70] = 5
	return &b
}

// np.gradient takes central differences inside and one-sided ones at the ends.
func TestSteepestRate(t *testing.T) {
	for _, c := range []struct {
		fall int // the smoothed loss falls from this point to the next
		want int
	}{
		{20, 20}, // a central difference on both sides of it; the first counts
		{10, 10}, // at the end the difference is one-sided, so twice as steep
		{9, 10},  // between the last point left out and the first looked at: all flat, the first
		{2, 10},  // not looked at: all flat, the first
		{23, 24}, // the last two looked at
	} {
		points := make([]train.RatePoint, 30) // 10 to 24 are looked at
		for i := range points {
			points[i] = train.RatePoint{Rate: float64(i), Smooth: 1}
			if i > c.fall {
				points[i].Smooth = 0.5
			}
		}
		got, err := train.SteepestRate(points)
		require.NoError(t, err)
		require.Equal(t, float64(c.want), got, fmt.Sprint(c))
	}
	_, err := train.SteepestRate(make([]train.RatePoint, 16))
	require.ErrorContains(t, err, "16 points")
}

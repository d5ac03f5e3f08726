package train_test

import (
	"context"
	"iter"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

// state returns a copy of all parameters and buffers.
func state(t testing.TB, m nn.Module) *checkpoint.File {
	t.Helper()
	f, err := nn.SaveState(m)
	require.NoError(t, err)
	return f
}

// TestFindRateGolden compares FindRate with fastai 1.0.54's lr_find on the Tiny model, with
// fastai's own optimizer and with the notebook's, whose step does nothing there.
func TestFindRateGolden(t *testing.T) {
	want := golden.Tensors(t, "b10_misc/lr_find.safetensors")
	for name, cfg := range map[string]train.Config{"default": mean(1, 0), "acc_wrapper": notebook(1, 0)} {
		t.Run(name, func(t *testing.T) {
			model := newTiny(t, nn.Double)
			before := state(t, model)
			points, err := learner(t, model, cfg).
				FindRate(context.Background(), formulaBatches("b3.train", 11, 2, 8, 0.3), nil)
			require.NoError(t, err)
			var rates, losses, smooth []float64
			for _, p := range points {
				rates, losses, smooth = append(rates, p.Rate), append(losses, p.Loss), append(smooth, p.Smooth)
			}
			key := "lr_find." + name
			golden.Close(t, "rates", rates, golden.Float64s(t, want, key+".lrs"), 1e-15)
			// Only the order of sums differs: sums of 128 numbers in each of some hundred
			// batches, about sqrt(12800) roundings of 1.1e-16. Errors of 5e-16 and 2e-15
			// were seen.
			a := golden.Close(t, "losses", losses, golden.Float64s(t, want, key+".raw"), 1e-13)
			b := golden.Close(t, "smoothed", smooth, golden.Float64s(t, want, key+".smooth"), 1e-13)
			t.Logf("worst errors: losses %.2g, smoothed %.2g", a, b)
			require.Equal(t, before, state(t, model), "parameters and buffers are restored")
		})
	}
}

// TestFindRate compares a few of the same points and does not need ../shared.
func TestFindRate(t *testing.T) {
	points, err := learner(t, newTiny(t, nn.Double), mean(1, 0)).
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

// The expected rates are from golden/b10_misc/misc.json, "lr_find.slice":
// lr_find(start_lr=slice(1e-7,1e-5), end_lr=slice(1e-2,10), num_it=30, stop_div=False)
func TestFindRateGroups(t *testing.T) {
	start, err := train.EvenRates(1e-7, 1e-5, 3)
	require.NoError(t, err)
	end, err := train.EvenRates(1e-2, 10, 3)
	require.NoError(t, err)
	points, err := learner(t, newTiny(t, nn.Double), mean(1, 0)).
		FindRate(context.Background(), formulaBatches("b3.train", 11, 2, 8, 0.3), &train.FindOptions{Start: start, End: end, Iterations: 30, NoStop: true})
	require.NoError(t, err)
	require.Len(t, points, 30)
	require.InEpsilon(t, 9.999999999999999e-06, points[0].Rate, 1e-15)
	require.InEpsilon(t, 6.3095734448019325, points[29].Rate, 1e-14)
}

// The search ends at the first smoothed loss that is more than four times the least one so
// far, or that is NaN. This loss is the last point.
func TestFindRateStops(t *testing.T) {
	source := formulaBatches("b3.train", 4, 2, 8, 0.3)
	exploding := &train.FindOptions{Start: train.SameRates(1e-2, 3), End: train.SameRates(1e5, 3)}
	model := newTiny(t, nn.Double)
	tr := learner(t, model, mean(1, 0))
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

// FindRate restores the model also after an error.
func TestFindRateErrors(t *testing.T) {
	model := newTiny(t, nn.Double)
	before := state(t, model)
	tr := learner(t, model, mean(1, 0))
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
		"class in batch 5": {source: append(append(batches{}, source...), wrongClass(), source[0]), want: "epoch 0: batch 4: a target of class 5"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tr.FindRate(context.Background(), c.source, &c.opt)
			require.ErrorContains(t, err, c.want)
			require.Equal(t, before, state(t, model))
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	seen := 0
	points, err := tr.FindRate(ctx, source, &train.FindOptions{Each: func(train.RatePoint) error {
		if seen++; seen == 6 {
			cancel()
		}
		return nil
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.EqualError(t, err, "train: cancelled in the search for a rate, after 6 iterations")
	require.Len(t, points, 6)
	require.Equal(t, before, state(t, model))
}

// lying is a source that says it has 3 batches and yields none.
type lying struct{}

func (lying) Len() int        { return 3 }
func (lying) Batches() int    { return 3 }
func (lying) Name(int) string { return "" }
func (lying) Epoch(int, int) iter.Seq2[*feed.Batch, error] {
	return func(func(*feed.Batch, error) bool) {}
}

// wrongClass returns a batch with a target of class 5.
func wrongClass() *feed.Batch {
	b := *formulaBatches("b3.train", 1, 2, 8, 0.3)[0]
	b.Targets = append([]uint8{}, b.Targets...)
	b.Targets[70] = 5
	return &b
}

// searched returns the points of an artificial search of 100 iterations: the loss falls
// around iteration center, has a wave added to it, and explodes at the end.
func searched(wave, phase, center float64) []train.RatePoint {
	points := make([]train.RatePoint, 100)
	for k := range points {
		x := float64(k)
		loss := 0.7 - 0.3/(1+math.Exp(-(x-center)/6)) + wave*math.Sin(1.7*x+phase) + math.Exp((x-93)/2)
		points[k] = train.RatePoint{Rate: 1e-7 * math.Pow(1e8, x/100), Loss: loss, Smooth: loss}
	}
	return points
}

// The expected rates are those of fastai 2.7.19, callback/schedule.py, valley, for
// lrs[10:-5] and losses[10:-5] of the same numbers, with which its lr_find calls it.
func TestValleyRate(t *testing.T) {
	for _, c := range []struct{ wave, phase, center, want float64 }{
		{0, 0, 55, 0.0002754228703338166},
		{0.02, 0, 55, 0.01584893192461114},
		{0.05, 1, 40, 0.013182567385564075},
		{0.1, 2, 70, 0.08317637711026708},
	} {
		got, err := train.ValleyRate(searched(c.wave, c.phase, c.center))
		require.NoError(t, err)
		require.InEpsilon(t, c.want, got, 1e-13, "%v", c) // the pow of C and of Go may differ in the last bits
	}
}

// The steepest point of a logistic fall is its centre. A wave from batch to batch does not
// move the suggestion far from it.
func TestSteepestRate(t *testing.T) {
	for _, c := range []struct{ wave, phase, center, within float64 }{
		{0, 0, 55, 0},
		{0, 0, 40, 0},
		{0.02, 0, 55, 2},
		{0.05, 1, 40, 2},
		{0.1, 2, 70, 2},
	} {
		got, err := train.SteepestRate(searched(c.wave, c.phase, c.center))
		require.NoError(t, err)
		at := 100 * math.Log(got/1e-7) / math.Log(1e8) // the iteration
		require.InDelta(t, c.center, at, c.within+1e-9, "%v", c)
	}
}

// SteepestRate and ValleyRate use only the points before the first NaN; too few points are
// an error.
func TestSuggestionsRefuse(t *testing.T) {
	for name, suggest := range map[string]func([]train.RatePoint) (float64, error){"steepest": train.SteepestRate, "valley": train.ValleyRate} {
		_, err := suggest(make([]train.RatePoint, 10))
		require.ErrorContains(t, err, "10 points", name)
		points := searched(0, 0, 55)
		for i := 12; i < 100; i++ {
			points[i].Loss, points[i].Smooth = math.NaN(), math.NaN()
		}
		_, err = suggest(points)
		require.ErrorContains(t, err, "not numbers", name)
		points = searched(0, 0, 40)
		points[80].Loss, points[80].Smooth = math.NaN(), math.NaN()
		_, err = suggest(points)
		require.NoError(t, err, name)
	}
}

// noisyFilms returns films with a bright rectangle in noise, in batches of two.
func noisyFilms(seed uint64) batches {
	const films, side = 16, 16
	r := rand.New(rand.NewPCG(seed, 7))
	var b batches
	for range films / 2 {
		x := &feed.Batch{N: 2, C: 1, H: side, W: side, Images: make([]float32, 2*side*side), Targets: make([]uint8, 2*side*side)}
		for i := range 2 {
			row, col := 1+r.IntN(9), 1+r.IntN(9)
			for j := range side * side {
				inside := j/side >= row && j/side < row+6 && j%side >= col && j%side < col+6
				v := 0.4 + 0.1*r.NormFloat64()
				if inside {
					v += 0.3
					x.Targets[i*side*side+j] = 1
				}
				x.Images[i*side*side+j] = float32(v)
			}
		}
		b = append(b, x)
	}
	return b
}

// For 15 seeds of weights and films, both suggestions are rates with which the network can
// be trained: they are not so low that nothing changes, and with both the loss falls.
func TestSuggestionsOverSeeds(t *testing.T) {
	for seed := range uint64(15) {
		source := noisyFilms(seed)
		fresh := func() *train.Learner {
			in := nn.NewInit(nn.CPU, seed)
			model := nn.Sequential{
				nn.NewConv2d(in, 1, 8, 3, &nn.ConvOptions{Padding: 1}), nn.NewBatchNorm2d(in, 8, nil), nn.Activation{},
				nn.NewConv2d(in, 8, 2, 3, &nn.ConvOptions{Padding: 1}),
			}
			l, err := train.New(model, data.Binary("blob"), train.Default(), nil)
			require.NoError(t, err)
			return l
		}
		points, err := fresh().FindRate(context.Background(), source, nil)
		require.NoError(t, err)
		steepest, err := train.SteepestRate(points)
		require.NoError(t, err)
		valley, err := train.ValleyRate(points)
		require.NoError(t, err)
		t.Logf("seed %d: %d points, steepest %.2g, valley %.2g", seed, len(points), steepest, valley)
		for name, rate := range map[string]float64{"steepest": steepest, "valley": valley} {
			require.Greater(t, rate, 1e-4, "seed %d, %s", seed, name)
			require.Less(t, rate, 1.5, "seed %d, %s", seed, name)
			epochs, err := fresh().Fit(context.Background(), source, source[:2], train.Phase{Epochs: 3, Rates: []float64{rate}})
			require.NoError(t, err)
			require.Less(t, epochs[2].Value(metric.ValidLoss), 0.85*points[0].Loss, "seed %d, %s %v", seed, name, rate)
		}
	}
}

// A search makes the given number of iterations, over several epochs if needed.
func TestFindRateIterations(t *testing.T) {
	for _, n := range []int{1, 20, 23} {
		points, err := learner(t, newTiny(t, nn.Float), mean(1, 1)).
			FindRate(context.Background(), formulaBatches("b3.train", 7, 1, 8, 0.3), &train.FindOptions{Iterations: n})
		require.NoError(t, err)
		require.Len(t, points, n)
	}
}

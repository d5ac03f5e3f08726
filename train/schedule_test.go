package train_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

// notebookRates returns the notebook's two phases: 8 epochs frozen at 1e-3, then 10 epochs
// at slice(1e-3/80, 1e-3/2).
func notebookRates(t *testing.T) map[string]train.Phase {
	full, err := train.EvenRates(1e-3/80, 1e-3/2, 3)
	require.NoError(t, err)
	return map[string]train.Phase{
		"frozen": {Epochs: 8, Rates: train.SameRates(1e-3, 3)},
		"full":   {Epochs: 10, Rates: full},
	}
}

// TestOneCycleGolden compares every rate and momentum of fastai 1.0.54's
// OneCycleScheduler for 500, 11, 3 and 1 batches an epoch.
func TestOneCycleGolden(t *testing.T) {
	want := golden.Tensors(t, "b4_schedule/schedules.safetensors")
	var after struct {
		Schedules map[string]struct {
			AfterLast []any `json:"after_last"`
		}
	}
	golden.JSON(t, "b4_schedule/schedule.json", &after)
	worst := 0.0
	// Near the end cos(pi p)+1 is small, and a difference between the cosines of Go and C in
	// their last bit is large against it: one or two roundings of half the peak.
	near := func(what string, got, want, peak float64) {
		d := math.Abs(got - want)
		worst = max(worst, d/peak)
		if !(d <= 1e-12*want+2e-16*peak) {
			t.Errorf("%s is %v, want %v: error %.2g of it", what, got, want, d/want)
		}
	}
	for name, phase := range notebookRates(t) {
		for _, batches := range []int{500, 11, 3, 1} {
			key := fmt.Sprintf("%s.%d", name, batches)
			rates, momenta := golden.Float64s(t, want, key+".lr"), golden.Float64s(t, want, key+".mom")
			n := batches * phase.Epochs
			require.Len(t, momenta, n)
			for i := range n {
				r, m := train.OneCycle{}.At(i, n, phase.Rates)
				require.Len(t, r, 3)
				for g := range r {
					near(fmt.Sprintf("%s: rate %d of group %d", key, i, g), r[g], rates[3*i+g], phase.Rates[g])
				}
				near(fmt.Sprintf("%s: momentum %d", key, i), m, momenta[i], 1)
			}
			r, m := train.OneCycle{}.At(n, n, phase.Rates)
			last := after.Schedules[key].AfterLast
			for g := range r {
				near(key+": last rate", r[g], last[0].([]any)[g].(float64), phase.Rates[g])
			}
			near(key+": last momentum", m, last[1].([]any)[0].(float64), 1)
		}
	}
	t.Logf("worst error %.2g of the peak", worst)
}

// TestOneCycle compares a few of the same numbers and does not need ../shared: those of
// "frozen.11" and "full.11" in golden/b4_schedule/schedules.safetensors.
func TestOneCycle(t *testing.T) {
	phases := notebookRates(t)
	const frozen, full = 88, 110
	rates := map[int][]float64{frozen: phases["frozen"].Rates, full: phases["full"].Rates}
	for _, c := range []struct {
		n, i     int
		last     float64 // rate of the last group
		momentum float64
	}{
		{frozen, 0, 4e-5, 0.95},
		{frozen, 26, 1e-3, 0.85},
		{frozen, 87, 6.457438474879072e-07, 0.9499358253585526},
		{frozen, 88, 4e-9, 0.95},
		{frozen, 1000, 4e-9, 0.95},
		{full, 0, 2.0000000000000005e-05, 0.95},
		{full, 33, 5.000000000000001e-4, 0.85},
		{full, 109, 2.1004933165359552e-07, 0.9499583899672291},
		{full, 110, 2.0000000000000005e-09, 0.95},
	} {
		got, momentum := train.OneCycle{}.At(c.i, c.n, rates[c.n])
		require.InDelta(t, c.last, got[2], 1e-12*c.last+2e-16*rates[c.n][2], "iteration %d", c.i)
		require.InEpsilon(t, c.momentum, momentum, 1e-12, "iteration %d", c.i)
	}
}

// With few or no iterations, all rates and momenta are finite and within their ranges, and
// the peak is at iteration int(0.3 n).
func TestOneCycleShort(t *testing.T) {
	for n := range 15 {
		for i := range n + 3 {
			rates, momentum := train.OneCycle{}.At(i, n, []float64{2})
			require.GreaterOrEqual(t, rates[0], 2/25e4*(1-1e-9), "%d of %d", i, n)
			require.LessOrEqual(t, rates[0], 2.0, "%d of %d", i, n)
			require.GreaterOrEqual(t, momentum, 0.85-1e-12)
			require.LessOrEqual(t, momentum, 0.95+1e-12)
		}
		if rise := int(0.3 * float64(n)); rise > 0 {
			rates, _ := train.OneCycle{}.At(rise, n, []float64{2})
			require.InDelta(t, 2, rates[0], 1e-15)
		}
	}
}

// The expected rates are those of fastai's lr_range for a number, a slice with one end, and
// a slice with two ends: golden/b4_schedule/schedule.json, "lr_range".
func TestRates(t *testing.T) {
	require.Equal(t, []float64{1e-3, 1e-3, 1e-3}, train.SameRates(1e-3, 3))
	require.Equal(t, []float64{1e-4, 1e-4, 1e-3}, train.TenthRates(1e-3, 3))
	require.Equal(t, []float64{1e-3}, train.TenthRates(1e-3, 1))
	require.Empty(t, train.TenthRates(1e-3, 0))
	got, err := train.EvenRates(1e-3/80, 1e-3/2, 3)
	require.NoError(t, err)
	require.InEpsilonSlice(t, []float64{1.25e-05, 7.90569415042095e-05, 0.0005000000000000001}, got, 1e-15)
	got, err = train.EvenRates(1e-3/80, 1e-3/2, 1)
	require.NoError(t, err)
	require.Equal(t, []float64{1e-3 / 2}, got)
	for _, bad := range [][2]float64{{0, 1}, {1, 0}, {-1, 1}, {math.NaN(), 1}, {1, math.Inf(1)}, {1e-300, 1e300}} {
		_, err := train.EvenRates(bad[0], bad[1], 3)
		require.Error(t, err, "%v", bad)
	}
	_, err = train.EvenRates(1e-3, 1e-2, 0)
	require.Error(t, err)
}

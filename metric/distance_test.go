package metric

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The transform equals a search over all pixels of the set.
func TestDistanceTransformIsTheSlowSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 300 {
		w, h := 1+rng.IntN(17), 1+rng.IntN(13)
		s := Spacing{X: 0.05 + 3*rng.Float64(), Y: 0.05 + 3*rng.Float64()}
		if rng.IntN(3) == 0 {
			s = Spacing{1, 1} // ties
		}
		set := make([]bool, w*h)
		var points []point
		for range 1 + rng.IntN(1+w*h/(1+rng.IntN(20))) {
			p := point{rng.IntN(w), rng.IntN(h)}
			set[p.y*w+p.x] = true
			points = append(points, p)
		}
		got := distanceTransform(set, w, h, s)
		for y := range h {
			for x := range w {
				want := math.Inf(1)
				for _, p := range points {
					dx, dy := float64(x-p.x)*s.X, float64(y-p.y)*s.Y
					want = min(want, dx*dx+dy*dy)
				}
				// If two parabolas nearly meet, rounding may choose either.
				require.InDelta(t, want, got[y*w+x], 1e-12*(1+want), "%dx%d %v: %d, %d", w, h, s, x, y)
			}
		}
	}
}

func randomMask(rng *rand.Rand, n int) []uint8 {
	m := make([]uint8, n)
	dense := rng.IntN(10)
	for i := range m {
		if rng.IntN(10) <= dense {
			m[i] = 1
		}
	}
	return m
}

func TestDistanceLaws(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	for range 200 {
		w, h := 1+rng.IntN(12), 1+rng.IntN(9)
		a, b := randomMask(rng, w*h), randomMask(rng, w*h)
		measure := func(a, b []uint8, class uint8, w, h int, s Spacing) Distances {
			d, err := SurfaceDistances(a, b, class, w, h, s)
			require.NoError(t, err)
			return d
		}
		s := Spacing{0.5, 2}
		d := measure(a, b, 1, w, h, s)
		if !slices.Contains(a, 1) || !slices.Contains(b, 1) {
			require.True(t, math.IsNaN(d.Mean) && math.IsNaN(d.Hausdorff95))
			continue
		}
		near := func(want, got Distances, factor float64) {
			require.InDelta(t, want.Hausdorff95, got.Hausdorff95/factor, 1e-12)
			require.InDelta(t, want.Mean, got.Mean/factor, 1e-12)
		}
		near(d, measure(b, a, 1, w, h, s), 1)                                 // symmetric
		near(d, measure(a, b, 1, w, h, Spacing{1.5, 6}), 3)                   // in another unit
		near(Distances{}, measure(a, a, 1, w, h, s), 1)                       // of equal masks
		near(d, measure(turn(a, w), turn(b, w), 1, h, w, Spacing{2, 0.5}), 1) // rows as columns

		// Another class beside it changes nothing.
		a5, b5 := slices.Clone(a), slices.Clone(b)
		for i := range a5 {
			a5[i], b5[i] = 7-a5[i]*2, 7-b5[i]*2
		}
		near(d, measure(a5, b5, 5, w, h, s), 1)
	}
}

func turn(m []uint8, w int) []uint8 {
	out := make([]uint8, 0, len(m))
	for x := range w {
		for i := x; i < len(m); i += w {
			out = append(out, m[i])
		}
	}
	return out
}

func TestDistanceErrors(t *testing.T) {
	m := make([]uint8, 6)
	for _, tc := range []struct {
		w, h int
		s    Spacing
		want string
	}{
		{3, 3, Spacing{}, "masks of 6 and 6 pixels, want 3x3"},
		{-3, -2, Spacing{}, "want -3x-2"},
		{3, 2, Spacing{X: -1}, "pixel spacing -1"},
		{3, 2, Spacing{Y: math.NaN()}, "pixel spacing NaN"},
		{3, 2, Spacing{Y: 1e7}, "pixel spacing 1e+07"},
	} {
		_, err := SurfaceDistances(m, m, 1, tc.w, tc.h, tc.s)
		assert.ErrorContains(t, err, tc.want)
	}
}

func BenchmarkSurfaceDistances(b *testing.B) {
	const n = 256
	x, y := make([]uint8, n*n), make([]uint8, n*n)
	for i := range x {
		if r := math.Hypot(float64(i%n-100), float64(i/n-110)); r < 80 {
			x[i] = 1
		}
		if r := math.Hypot(float64(i%n-110), float64(i/n-100)); r < 75 {
			y[i] = 1
		}
	}
	for b.Loop() {
		if _, err := SurfaceDistances(x, y, 1, n, n, Spacing{}); err != nil {
			b.Fatal(err)
		}
	}
}

package report

import (
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/metric"
)

// out is where a picture goes: a temporary folder, or the one that
// HCUNET_REPORT_OUT names, to look at them.
func out(t *testing.T, name string) string {
	dir := os.Getenv("HCUNET_REPORT_OUT")
	if dir == "" {
		dir = t.TempDir()
	}
	return filepath.Join(dir, name)
}

func decode(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	m, err := png.Decode(f)
	require.NoError(t, err)
	return m
}

// has says whether m holds a pixel of exactly that colour.
func has(m image.Image, want color.RGBA) bool {
	b := m.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			if color.RGBAModel.Convert(m.At(x, y)) == want {
				return true
			}
		}
	}
	return false
}

// hump is a curve like those of a trained fold: steep, flat, falling.
func hump(peak, best float64) Curve {
	var c Curve
	for i := range 99 {
		t := float64(i+1) / 100
		c.Thresholds = append(c.Thresholds, t)
		c.Dice = append(c.Dice, best-0.35*math.Pow(math.Abs(t-peak), 1.5)-0.2*math.Exp(-40*t))
	}
	return c
}

func TestBest(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		name            string
		curve           Curve
		threshold, dice float64
	}{
		{"the first of equals", Curve{"", false, []float64{0.1, 0.2, 0.3}, []float64{0.5, 0.7, 0.7}}, 0.2, 0.7},
		{"NaN is never best", Curve{"", false, []float64{0.1, 0.2, 0.3}, []float64{nan, -1, nan}}, 0.2, -1},
		{"nothing", Curve{}, nan, nan},
	} {
		t.Run(c.name, func(t *testing.T) {
			gotT, gotD := c.curve.Best()
			assert.Equal(t, math.Float64bits(c.threshold), math.Float64bits(gotT))
			assert.Equal(t, math.Float64bits(c.dice), math.Float64bits(gotD))
		})
	}
}

func TestDicePlot(t *testing.T) {
	path := out(t, "dice.png")
	require.NoError(t, DicePlot(path, "fold 0", hump(0.19, 0.8412)))
	m := decode(t, path)
	assert.Equal(t, image.Pt(778, 504), m.Bounds().Size())
	assert.True(t, has(m, blue), "the curve")
	assert.False(t, has(m, vermillion), "a second curve")

	path = out(t, "dice-folds.png")
	var folds []Curve
	for i, at := range []float64{0.19, 0.14, 0.33, 0.56} {
		c := hump(at, 0.84-0.01*float64(i))
		c.Name = "fold " + string(rune('0'+i))
		folds = append(folds, c)
	}
	pooled := hump(0.25, 0.83)
	pooled.Name, pooled.Pooled = "pooled", true
	require.NoError(t, DicePlot(path, "held-out cases", append(folds, pooled)...))
	assert.True(t, has(decode(t, path), vermillion), "the second curve")
	assert.True(t, has(decode(t, path), ink), "the pooled curve")
}

func TestLossPlot(t *testing.T) {
	var h LossHistory
	for i := range 600 {
		noise := 0.03 * math.Sin(float64(i*i))
		h.Train = append(h.Train, 0.08+0.6*math.Exp(-float64(i)/60)+noise)
		if i%100 == 99 {
			h.ValidAt = append(h.ValidAt, i+1)
			h.Valid = append(h.Valid, 0.09+0.5*math.Exp(-float64(i)/60))
		}
	}
	h.Train[300], h.Train[301], h.Train[302] = math.NaN(), math.Inf(1), 9
	h.Phases = []Phase{{"frozen", 0}, {"full", 400}}
	for i := 400; i < 600; i++ {
		h.Train[i] += 0.2 // a new phase begins with other rates
	}
	path := out(t, "loss.png")
	require.NoError(t, LossPlot(path, "fold 0: loss", h))
	m := decode(t, path)
	assert.True(t, has(m, blue), "train")
	assert.True(t, has(m, vermillion), "valid")
}

func TestSchedulePlot(t *testing.T) {
	const n, peak = 1000, 300
	rates := make([][]float64, 3)
	var mom []float64
	for i := range n {
		up := float64(i) < peak
		k := float64(i) / peak
		if !up {
			k = float64(i-peak) / (n - peak)
		}
		c := (1 - math.Cos(math.Pi*k)) / 2
		for g, top := range []float64{1.25e-5, 7.9e-5, 5e-4} {
			if up {
				rates[g] = append(rates[g], top/25+(top-top/25)*c)
			} else {
				rates[g] = append(rates[g], top*(1-c))
			}
		}
		if up {
			mom = append(mom, 0.95-0.1*c)
		} else {
			mom = append(mom, 0.85+0.1*c)
		}
	}
	path := out(t, "schedule.png")
	require.NoError(t, SchedulePlot(path, "one cycle", rates, mom, []Phase{{"frozen", 0}, {"full", 400}}))
	assert.Equal(t, image.Pt(778, 778), decode(t, path).Bounds().Size())
}

// A run that measured nothing, or only NaN, still gets its pictures.
func TestPlotsOfNothing(t *testing.T) {
	dir := t.TempDir()
	nan := math.NaN()
	for _, err := range []error{
		DicePlot(filepath.Join(dir, "a.png"), "", Curve{}),
		DicePlot(filepath.Join(dir, "b.png"), "t", Curve{"", false, []float64{0.5}, []float64{nan}}, Curve{"", false, []float64{0.5}, []float64{1}}),
		LossPlot(filepath.Join(dir, "c.png"), "t", LossHistory{}),
		LossPlot(filepath.Join(dir, "d.png"), "t", LossHistory{Train: []float64{nan, math.Inf(1)}, ValidAt: []int{1}, Valid: []float64{nan}}),
		LossPlot(filepath.Join(dir, "e.png"), "t", LossHistory{Train: []float64{0.5}}),
		LossPlot(filepath.Join(dir, "f.png"), "t", LossHistory{Train: []float64{1e300, -1e300}}),
		SchedulePlot(filepath.Join(dir, "g.png"), "t", nil, nil, nil),
		SchedulePlot(filepath.Join(dir, "h.png"), "t", [][]float64{{1}}, nil, []Phase{{"a", 0}, {"b", 7}}),
		CalibrationPlot(filepath.Join(dir, "i.png"), "t", nil),
		CalibrationPlot(filepath.Join(dir, "j.png"), "t", []metric.Bin{{Low: 0, High: 1, Mean: nan}}),
	} {
		require.NoError(t, err)
	}
	require.Error(t, LossPlot(filepath.Join(dir, "absent", "x.png"), "t", LossHistory{}))
}

func TestProgrammerErrors(t *testing.T) {
	assert.Panics(t, func() { DicePlot("x.png", "", Curve{Thresholds: []float64{1}}) })
	assert.Panics(t, func() { LossPlot("x.png", "", LossHistory{Valid: []float64{1}}) })
}

// The running mean restarts with each phase: its last value is the number in the
// table of the training loop. Seven losses of 8, then two of 1 and 3.
func TestRunningMeanBeginsAnew(t *testing.T) {
	losses := []float64{8, 8, 8, 8, 8, 8, 8, 1, 3}
	got := runningMean(losses, []Phase{{"frozen", 0}, {"full", 7}})
	// Python: b = 0.98; (b*0.02*1 + 0.02*3) / (1 - b**2)
	want := []float64{8, 8, 8, 8, 8, 8, 8, 1, 2.01010101010101}
	assert.InDeltaSlice(t, want, got, 1e-12, "rounding of a dozen operations")
	across := runningMean(losses, nil)
	assert.Greater(t, across[8], 6.0)
}

// The picture has a dashed line between the phases, and its curve a gap there.
func TestPhasesAreMarked(t *testing.T) {
	flat := make([]float64, 100)
	for i := range flat {
		flat[i] = 0.5
	}
	h := LossHistory{Train: flat}
	without, with := filepath.Join(t.TempDir(), "a.png"), filepath.Join(t.TempDir(), "b.png")
	require.NoError(t, LossPlot(without, "", h))
	h.Phases = []Phase{{"frozen", 0}, {"full", 50}}
	require.NoError(t, LossPlot(with, "", h))
	a, b := decode(t, without), decode(t, with)
	require.Equal(t, a.Bounds(), b.Bounds())
	columns := map[int]int{}
	for y := range b.Bounds().Dy() {
		for x := range b.Bounds().Dx() {
			if a.At(x, y) != b.At(x, y) {
				columns[x]++
			}
		}
	}
	// A dashed line of the plot's height is half of some 350 pixels.
	tall := 0
	for x, n := range columns {
		if n > 120 {
			tall++
			assert.InDelta(t, b.Bounds().Dx()/2, x, 60, "in the middle, axis and margins aside")
		}
	}
	assert.Positive(t, tall)
}

func TestCalibrationPlot(t *testing.T) {
	var bins []metric.Bin
	for i := range 10 {
		low := float64(i) / 10
		pixels := int64(1e7 / math.Pow(6, float64(i)))
		bins = append(bins, metric.Bin{Low: low, High: low + 0.1, Mean: low + 0.05, Pixels: pixels, InTarget: int64(float64(pixels) * math.Pow(low+0.05, 1.4))})
	}
	path := out(t, "calibration.png")
	require.NoError(t, CalibrationPlot(path, "held-out pixels", bins))
	m := decode(t, path)
	assert.Equal(t, image.Pt(778, 778), m.Bounds().Size())
	assert.True(t, has(m, blue))
	assert.Equal(t, "10¹²", powers{}.Ticks(0, 12)[12].Label)
	assert.Equal(t, "1000", powers{}.Ticks(0, 12)[3].Label)
}

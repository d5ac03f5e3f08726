package report

import (
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A search is drawn, losses that are no numbers left out; rates that no logarithmic
// axis has are errors, and leave no file.
func TestRatePlot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rate.png")
	good := RateSearch{Rates: []float64{1e-6, 1e-3, 1}, Loss: []float64{1, 0.5, math.NaN()}, Smooth: []float64{1, 0.8, 0.9}, Marks: []RateMark{{"steepest", 1e-3}}}
	require.NoError(t, RatePlot(path, "search", good))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	_, err = png.DecodeConfig(f)
	require.NoError(t, err)

	path = filepath.Join(dir, "bad.png")
	for want, s := range map[string]RateSearch{
		"0 rates":      {},
		"1 losses":     {Rates: []float64{1, 2}, Loss: []float64{1}, Smooth: []float64{1, 2}},
		"a rate of 0":  {Rates: []float64{0, 1}, Loss: []float64{1, 2}, Smooth: []float64{1, 2}},
		"a rate of -1": {Rates: []float64{-1, 1}, Loss: []float64{1, 2}, Smooth: []float64{1, 2}},
	} {
		require.ErrorContains(t, RatePlot(path, "", s), want)
		require.NoFileExists(t, path)
	}
}

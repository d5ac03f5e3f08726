package metric

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The numbers of testdata/golden.json were made by testdata/golden.py, with MedPy
// 0.5.2 and scikit-learn 1.9.1.
type goldenFile struct {
	Distances []struct {
		Name              string
		Predicted, Target []string
		Y, X              float64
		Values            []float64 // hd95 and assd; nil where MedPy refuses an empty mask
	}
	Curves []struct {
		Target           []uint8
		Steps            []int   // 4096 times the probability
		AveragePrecision float64 `json:"average_precision"`
		BestDice         float64 `json:"best_dice"`
		BestThreshold    float64 `json:"best_threshold"`
	}
}

func readGolden(t *testing.T) (g goldenFile) {
	b, err := os.ReadFile("testdata/golden.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &g))
	require.NotEmpty(t, g.Distances)
	require.NotEmpty(t, g.Curves)
	return g
}

func TestDistanceGoldens(t *testing.T) {
	for _, tc := range readGolden(t).Distances {
		w, h := len(tc.Predicted[0]), len(tc.Predicted)
		d, err := SurfaceDistances(mask(strings.Join(tc.Predicted, "")), mask(strings.Join(tc.Target, "")), 1, w, h, Spacing{X: tc.X, Y: tc.Y})
		require.NoError(t, err)
		if tc.Values == nil {
			assert.True(t, math.IsNaN(d.Hausdorff95) && math.IsNaN(d.Mean), tc.Name)
			continue
		}
		// A few roundings of float64; means of up to 60 distances.
		assert.InDelta(t, tc.Values[0], d.Hausdorff95, 1e-13*(1+tc.Values[0]), tc.Name)
		assert.InDelta(t, tc.Values[1], d.Mean, 1e-13*(1+tc.Values[1]), tc.Name)
	}
}

func TestAveragePrecisionGoldens(t *testing.T) {
	for i, tc := range readGolden(t).Curves {
		prob := make([]float32, len(tc.Steps))
		for j, s := range tc.Steps {
			prob[j] = float32(s) / 4096
		}
		var h Histogram
		h.Add(prob, tc.Target, 1)
		ap := h.AveragePrecision()
		assert.InDelta(t, tc.AveragePrecision, ap.Value, 1e-14, i) // roundings of a sum of at most 60
		assert.True(t, ap.Low <= ap.Value && ap.Value <= ap.High, "%+v", ap)
		threshold, dice := h.BestDice()
		assert.Equal(t, tc.BestThreshold, threshold, i)
		assert.InDelta(t, tc.BestDice, dice.Value, 1e-14, i)
	}
}

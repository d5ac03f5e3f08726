package augment

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The slow twin: the definition, in float64.
func relit(x float32, shift, scale float64) float64 {
	v := float64(min(max(x, darkest), lightest))
	return 1 / (1 + math.Exp(-(math.Log(v/(1-v))+shift)*scale))
}

func TestRelightIsItsDefinition(t *testing.T) {
	var worst float64
	for _, shift := range []float64{0, -0.405465, 0.405465, 3, -800} {
		for _, scale := range []float64{1, 0.8, 1.25, 0.01, 7, 900} {
			var pix []float32
			for i := range 4001 {
				pix = append(pix, float32(i)/4000)
			}
			pix = append(pix, -1, 2, 1e-9, 1e-7, 1-1e-6, 3e-5)
			got := append([]float32(nil), pix...)
			relight(got, shift, scale)
			for i, x := range pix {
				want := relit(x, shift, scale)
				err := math.Abs(float64(got[i]) - want)
				worst = max(worst, err)
				assert.LessOrEqual(t, err, 1.0/(1<<24), "x %v, shift %v, scale %v", x, shift, scale) // half a float32 step below 1, and as much for its tie
			}
		}
	}
	t.Logf("worst error %.3g", worst)
}

func TestPower(t *testing.T) {
	worst := 0.0
	for _, s := range []float64{0.8, 1, 1.25, -1, 0.1} {
		for _, c := range []float64{0, 0.5, -2} {
			p := newPower(s, c)
			for x := 1e-8; x < 1e8; x *= 1.0137 {
				want := math.Exp(c) * math.Pow(x, s)
				worst = max(worst, math.Abs(one(p, x)/want-1))
			}
		}
	}
	assert.Less(t, worst, 1e-10) // what the series' first missing terms are worth
	t.Logf("worst relative error %.2g", worst)
}

func TestRelightSurvivesNonsense(t *testing.T) {
	pix := []float32{float32(math.NaN()), float32(math.Inf(1)), 0.5}
	relight(pix, 0.1, 1.1)
	assert.Greater(t, pix[2], float32(0.5))
}

func one(p *power, x float64) float64 {
	v := []float64{x}
	p.raise(v)
	return v[0]
}

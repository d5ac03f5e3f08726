package augment

import "math"

// The range logits are taken on, as float32 numbers: fastai 1.0.54,
// vision/image.py, logit_.
const (
	darkest  = float32(1e-7)
	lightest = float32(1 - 1e-7)
)

// relight replaces each x by sigmoid((logit(x) + shift) * scale), which is
//
//	1 / (1 + exp(-shift*scale) * (1/x - 1)^scale).
func relight(pix []float32, shift, scale float64) {
	k := math.Exp(-shift * scale)
	for i, x := range pix {
		odds := 1/float64(min(max(x, darkest), lightest)) - 1
		if scale != 1 {
			odds = math.Exp(scale * math.Log(odds))
		}
		pix[i] = float32(1 / (1 + k*odds))
	}
}

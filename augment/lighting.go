package augment

import "math"

// The range to which values are clamped before the logit, as float32 numbers:
// fastai 1.0.54, vision/image.py, logit_.
const (
	darkest  = float32(1e-7)
	lightest = float32(1 - 1e-7)
)

// relight replaces each x by sigmoid((logit(x) + shift) * scale), which equals
//
//	1 / (1 + exp(-shift*scale) * (1/x - 1)^scale).
func relight(pix []float32, shift, scale float64) {
	if scale == 1 {
		k := math.Exp(-shift)
		for i, x := range pix {
			odds := 1/float64(min(max(x, darkest), lightest)) - 1
			pix[i] = float32(1 / (1 + k*odds))
		}
		return
	}
	p := newPower(scale, -shift*scale)
	var odds [chunk]float64
	for ; len(pix) > 0; pix = pix[min(len(pix), chunk):] {
		part := pix[:min(len(pix), chunk)]
		for i, x := range part {
			odds[i] = 1/float64(min(max(x, darkest), lightest)) - 1
		}
		p.raise(odds[:len(part)])
		for i, v := range odds[:len(part)] {
			part[i] = float32(1 / (1 + v))
		}
	}
}

// A power computes exp(c) * x^s for positive x and fixed s and c, about five
// times as fast as math.Pow. Its relative error of 1e-10 is too small to show
// in float32.
//
// The range of the mantissa of x is divided into steps intervals. A table has
// the logarithm of the centre of each interval; four terms of the series give
// the difference to x. The exponential is computed in the same way.
type power struct {
	log  [steps]struct{ inverse, log2 float64 } // of the centre of an interval; log2 is multiplied by s
	exp  [steps]float64                         // 2^(i/steps)
	s, c float64                                // c divided by ln 2, as an exponent of 2
}

const steps = 128

func newPower(s, c float64) *power {
	p := &power{s: s, c: c / math.Ln2}
	for i := range p.log {
		centre := 1 + (float64(i)+0.5)/steps
		p.log[i].inverse, p.log[i].log2 = 1/centre, s*math.Log2(centre)
		p.exp[i] = math.Exp2(float64(i) / steps)
	}
	return p
}

// raise replaces each x by exp(c) * x^s.
func (p *power) raise(xs []float64) {
	const (
		mantissa = 1<<52 - 1
		oneBits  = 1023 << 52
		far      = 1000 // beyond this exponent the result counts as 0 or infinite
	)
	s, c := p.s, p.c
	for k, x := range xs {
		bits := math.Float64bits(x)
		at := &p.log[bits>>45&(steps-1)]
		r := math.Float64frombits(bits&mantissa|oneBits)*at.inverse - 1 // |r| <= 1/256
		series := r * (1 + r*(-1./2+r*(1./3-r/4)))
		t := s*(float64(int(bits>>52)-1023)+series*(1/math.Ln2)) + at.log2 + c
		if t > far {
			t = far
		}
		if t < -far {
			t = -far
		}
		n := int(t*steps+far*steps) - far*steps // t*steps rounded down: the sum is not negative
		g := (t - float64(n)*(1./steps)) * math.Ln2
		y := p.exp[n&(steps-1)] * (1 + g*(1+g*(1./2+g*(1./6))))
		xs[k] = math.Float64frombits(math.Float64bits(y) + uint64(n>>7)<<52)
	}
}

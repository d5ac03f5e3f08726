package augment

import "math"

// chunk is the number of positions computed at a time; that many stay in the
// cache.
const chunk = 128

// A lattice computes the position of each output pixel of a plan in a source of
// h x w pixels.
type lattice struct {
	m          Matrix // from output column and row to source column and row
	rows, cols int    // of the output
	h, w       int
	padding    Padding

	exact bool // no perspective and no affine map: positions are fractions of whole numbers
	plan  *Plan
}

func newLattice(p *Plan, h, w int) *lattice {
	half := func(n int) float64 { return float64(n-1) / 2 }
	unit := func(n int) float64 { return 2 / float64(max(n-1, 1)) }
	in := Matrix{unit(p.W), 0, -1, 0, unit(p.H), -1, 0, 0, 1}
	out := Matrix{half(w), 0, half(w), 0, half(h), half(h), 0, 0, 1}
	return &lattice{
		m:    out.Mul(p.Sampling()).Mul(in),
		rows: p.H, cols: p.W, h: h, w: w, padding: p.Padding,
		exact: p.Affine == identity && p.Perspective == identity,
		plan:  p,
	}
}

// positions computes the source positions, in pixels, of the output pixels from i
// on, at most to the end of the row, and returns how many it computed. With
// Reflection and Border they lie in the source.
func (l *lattice) positions(i int, xs, ys *[chunk]float64) int {
	r, c := i/l.cols, i%l.cols
	n := min(l.cols-c, chunk)
	if l.exact {
		l.fractions(r, c, xs[:n], ys[:n])
		return n
	}
	m := &l.m
	x, y, z := m[1]*float64(r)+m[2], m[4]*float64(r)+m[5], m[7]*float64(r)+m[8]
	if m[6] == 0 && m[7] == 0 { // affine
		for k := range n {
			u := float64(c + k)
			xs[k], ys[k] = x+m[0]*u, y+m[3]*u
		}
	} else {
		for k := range n {
			u := float64(c + k)
			q := 1 / (z + m[6]*u)
			xs[k], ys[k] = (x+m[0]*u)*q, (y+m[3]*u)*q
		}
	}
	switch l.padding {
	case Reflection:
		reflect(xs[:n], l.w-1)
		reflect(ys[:n], l.h-1)
	case Border:
		clamp(xs[:n], l.w-1)
		clamp(ys[:n], l.h-1)
	}
	return n
}

// fractions computes the positions for a plan that only resizes, flips and
// crops. A position halfway between two pixels is exact.
func (l *lattice) fractions(r, c int, xs, ys []float64) {
	p := l.plan
	y := float64((p.Top+r)*(l.h-1)) / float64(max(p.GridH-1, 1))
	for k := range xs {
		col := p.Left + c + k
		if p.Flip {
			col = p.GridW - 1 - col
		}
		xs[k], ys[k] = float64(col*(l.w-1))/float64(max(p.GridW-1, 1)), y
	}
}

// reflect mirrors positions about 0 and last until they lie between the two.
func reflect(at []float64, last int) {
	end := float64(last)
	for i, v := range at {
		if v >= 0 && v <= end {
			continue
		}
		if last == 0 {
			at[i] = 0
			continue
		}
		v = math.Mod(math.Abs(v), 2*end)
		at[i] = min(v, 2*end-v)
	}
}

func clamp(at []float64, last int) {
	for i, v := range at {
		at[i] = min(max(v, 0), float64(last))
	}
}

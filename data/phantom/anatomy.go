package phantom

import (
	"math"
	"math/rand/v2"
)

// patient holds the numbers that differ from film to film. Lengths are fractions
// of the film's width. Amounts are radiographic densities: they are added to the
// exponent of the film's blackening curve (see develop in draw.go).
type patient struct {
	age       int
	sex, view string

	cx, cy, zoom    float64 // place of the body on the film
	sin, cos        float64 // of the angle by which the body leans
	exposure, grain float64 // of the film

	tissue, abdomen float64       // density of the chest wall and below the diaphragm
	girth           float64       // of the torso; 1 is normal
	heart           [4]float64    // centre x, y, half width, half height
	spine           float64       // density
	breast          float64       // density, 0 for most
	ribs            float64       // density
	ribGap, ribTop  float64       // distance between ribs, height of the first
	ribDrop         float64       // how far a rib falls from the spine to the side
	clavicle        float64       // height at the shoulder
	vessels         int           // of each lung
	lungs           [2]lung       // 0 on the left of the picture: the patient's right
	shade           [2][3]float64 // two soft shadows: x, y, density
}

// lung is one lung field. Above the widest level it is a quarter of an ellipse;
// below, it is a column that ends on the dome of the diaphragm.
type lung struct {
	side   float64 // -1 left of the spine, +1 right of it
	medial float64 // distance of its inner border from the midline
	width  float64 // from the inner to the outer border
	widest float64 // y of the widest level
	height float64 // from the widest level up to the apex
	base   float64 // y of the top of the diaphragm
	dome   float64 // how far the diaphragm falls towards the side
	air    float64 // density that the air removes
	flare  float64 // how much wider the base is

	gap *gap // nil for a lung that fills its field
}

// gap is a pneumothorax. The collapsed lung has the shape of its field with the
// outer border moved inwards and the apex moved down.
type gap struct {
	side, top float64 // share of width and of height that the lung has lost
	end       float64 // y below which the lung touches the wall again
	air       float64 // additional density that air without vessels removes
	line      float64 // density of the visceral pleura
	collapse  float64 // density that the lung gains by holding less air
}

func between(r *rand.Rand, lo, hi float64) float64 { return lo + (hi-lo)*r.Float64() }

// newPatient draws the anatomy, which all films of a patient share.
func newPatient(r *rand.Rand) *patient {
	p := &patient{
		age:      18 + r.IntN(72),
		sex:      [2]string{"F", "M"}[r.IntN(2)],
		tissue:   between(r, 1.15, 1.45),
		abdomen:  between(r, 0.5, 1.0),
		girth:    between(r, 0.93, 1.05),
		spine:    between(r, 0.30, 0.50),
		ribs:     between(r, 0.10, 0.19),
		ribGap:   between(r, 0.066, 0.080),
		ribTop:   between(r, 0.115, 0.150),
		ribDrop:  between(r, 0.03, 0.09),
		clavicle: between(r, 0.135, 0.175),
		vessels:  24 + r.IntN(14),
	}
	if p.sex == "F" {
		p.breast = between(r, 0.05, 0.30)
	}
	p.heart = [4]float64{between(r, 0.015, 0.04), between(r, 0.60, 0.64), between(r, 0.105, 0.150), between(r, 0.13, 0.17)}
	apex := between(r, 0.115, 0.150)
	for i := range p.lungs {
		l := &p.lungs[i]
		l.side = float64(2*i - 1)
		l.medial = between(r, 0.050, 0.065)
		l.width = between(r, 0.265, 0.315) * p.girth
		l.widest = between(r, 0.52, 0.58)
		l.height = l.widest - apex + between(r, -0.008, 0.008)
		l.base = between(r, 0.69, 0.74) + 0.015*float64(i) // the liver lifts the right side
		l.dome = between(r, 0.06, 0.10)
		l.air = between(r, 0.78, 0.96)
		l.flare = between(r, 0.0, 0.12)
	}
	return p
}

// place draws what differs between films of one patient: position, exposure,
// shadows.
func (p *patient) place(r *rand.Rand) {
	p.view = "PA"
	if r.IntN(3) == 0 {
		p.view = "AP"
		p.heart[2] *= 1.12 // the heart is farther from the film
	}
	p.cx = between(r, 0.475, 0.525)
	p.cy = between(r, -0.02, 0.02)
	p.sin, p.cos = math.Sincos(between(r, -0.05, 0.05)) // three degrees
	p.zoom = between(r, 0.92, 1.05)
	p.exposure = between(r, 0.85, 1.20)
	p.grain = between(r, 1.2, 2.6)
	for i := range p.shade {
		p.shade[i] = [3]float64{between(r, -0.35, 0.35), between(r, 0.2, 0.75), between(r, -0.06, 0.12)}
	}
}

// collapse gives one lung a pneumothorax: at the apex, along the side, or large.
// Its area is one to ten percent of the film.
func (p *patient) collapse(r *rand.Rand) {
	l := &p.lungs[r.IntN(2)]
	g := &gap{
		air:      between(r, 0.14, 0.26),
		line:     between(r, 0.16, 0.30),
		collapse: between(r, 0.06, 0.16),
	}
	switch kind := r.IntN(10); {
	case kind < 4: // apical
		g.top, g.side = between(r, 0.22, 0.45), between(r, 0.10, 0.24)
		g.end = l.widest + between(r, -0.02, 0.10)
	case kind < 8: // lateral
		g.top, g.side = between(r, 0.10, 0.24), between(r, 0.20, 0.36)
		g.end = l.base + between(r, -0.02, 0.20)
	default: // large
		g.top, g.side = between(r, 0.30, 0.45), between(r, 0.34, 0.52)
		g.end = l.base + 0.3
	}
	l.gap = g
}

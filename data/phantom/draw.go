package phantom

import (
	"image"
	"image/color"
	"math"
	"math/rand/v2"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// grid is the side of the array in which the anatomy is drawn. The array is
// then enlarged to the size of the film, and grain is added at that resolution.
const grid = Size / 2

// smooth is Perlin's step: 0 for x <= 0, 1 for x >= 1, and smooth between.
func smooth(x float64) float64 {
	if x <= 0 {
		return 0
	}
	if x >= 1 {
		return 1
	}
	return x * x * (3 - 2*x)
}

// outline holds pairs of height and half width of a torso; the shoulders reach
// beyond the film.
var outline = [...][2]float64{{-0.2, 0.11}, {0.02, 0.12}, {0.20, 0.47}, {0.28, 0.49}, {0.50, 0.45}, {0.75, 0.455}, {1.2, 0.48}}

func halfWidth(y float64) float64 {
	for i := 1; i < len(outline); i++ {
		if a, b := outline[i-1], outline[i]; y <= b[0] {
			return a[1] + (b[1]-a[1])*smooth((y-a[0])/(b[0]-a[0]))
		}
	}
	return outline[len(outline)-1][1]
}

// field returns how deep a point lies inside the lung field: its distance from
// the chest wall, which is approximate except near the wall, and negative
// outside. a is the distance of the point from the midline, on the side of the
// lung. side and top are the shares of width and height that the lung has lost.
func (l *lung) field(a, y, side, top float64) float64 {
	w := l.width * (1 - side)
	if y >= l.widest {
		return w*(1+l.flare*(y-l.widest)) - (a - l.medial)
	}
	h := l.height * (1 - top)
	// The apex lies above the first third of the field's width.
	a -= l.medial + 0.35*w
	w *= 0.65
	if a < 0 {
		a, w = -a, 0.8*w
	}
	u, v := a/w, (l.widest-y)/h
	if u+v == 0 {
		return w
	}
	// An ellipse's radius runs from w at the side to h at the apex.
	return (1 - math.Sqrt(u*u+v*v)) * (w*u + h*v) / (u + v)
}

// floor returns the height of a point above the diaphragm.
func (l *lung) floor(a, y float64) float64 {
	t := (a-l.medial)/l.width - 0.35
	return l.base + l.dome*t*math.Abs(t)*2.2 - y
}

// inner is field for the collapsed lung; it is positive inside the lung.
func (l *lung) inner(a, y float64) float64 {
	fade := 1 - smooth((y-(l.gap.end-0.16))/0.16)
	return l.field(a, y, l.gap.side*fade, l.gap.top)
}

// heartAt returns a positive number inside the shadow of the heart; x is
// measured from the midline.
func (p *patient) heartAt(x, y float64) float64 {
	dx, dy := (x-p.heart[0])/p.heart[2], (y-p.heart[1])/p.heart[3]
	dx += 0.45 * dy * 0.5 // its axis points down and to the patient's left
	return 1 - math.Sqrt(dx*dx+dy*dy)
}

// body converts a point on the film to the axes of the body: x from the
// midline, y down.
func (p *patient) body(fx, fy float64) (x, y float64) {
	dx, dy := (fx-p.cx)/p.zoom, (fy-0.5-p.cy)/p.zoom
	return p.cos*dx + p.sin*dy, 0.5 - p.sin*dx + p.cos*dy
}

// density returns the density at a point in the axes of the body, without
// vessels.
func (p *patient) density(x, y float64) float64 {
	hw := halfWidth(y) * p.girth
	q := 1 - (x/hw)*(x/hw)
	if q <= 0 {
		return 0
	}
	chord := math.Sqrt(q)
	t := p.tissue*(0.35*chord+0.65*smooth(q/0.35)) + p.abdomen*smooth((y-0.62)/0.25)

	l := &p.lungs[0]
	if x > 0 {
		l = &p.lungs[1]
	}
	a := math.Abs(x)
	wall := l.field(a, y, 0, 0)
	floor := l.floor(a, y)
	air := smooth(wall/0.022) * smooth(floor/0.018) * smooth((a-l.medial+0.02)/0.04)
	if air > 0 {
		air *= 1 - 0.9*smooth(p.heartAt(x, y)/0.14)
		t -= air * (l.air + p.abdomen*smooth((y-0.62)/0.25))
		if l.gap != nil {
			in := l.inner(a, y)
			t -= air * l.gap.air * smooth(-in/0.006)
			t += air * l.gap.collapse * smooth(in/0.02)
			t += air * l.gap.line * (1 - smooth(math.Abs(in)/0.0042))
		}
	}

	// The mediastinum: the spine, the great vessels of the heart, a dark
	// trachea.
	t += p.spine * (1 - smooth((a-0.030)/0.022))
	t += 0.30 * (1 - smooth((a-0.035)/0.035)) * smooth((y-0.18)/0.1)
	if a < 0.05 { // vertebrae
		b := y/0.046 - math.Floor(y/0.046)
		t += 0.06 * smooth(4*b*(1-b)) * (1 - smooth((a-0.030)/0.016))
	}
	t -= 0.34 * (1 - smooth((a-0.012)/0.012)) * smooth((0.33-y)/0.06)

	// Ribs: at the back from the spine outwards and down, at the front inwards
	// again.
	if cage := l.field(a, y, -0.07, -0.05); cage > -0.01 && a > 0.03 {
		s := (a - 0.03) / (l.width + l.medial)
		edge := smooth((cage + 0.01) / 0.02)
		back := (y - p.ribTop - p.ribDrop*s*s*(1+s*s)) / p.ribGap
		if back > 0 && back < 10 {
			t += edge * p.ribs * band(back-math.Floor(back), 0.36)
		}
		front := (y - p.ribTop - 0.10 - 0.17*(1-s)) / (p.ribGap * 1.15)
		if front > -0.5 && front < 6 && s > 0.3 {
			t += edge * 0.6 * p.ribs * smooth((s-0.3)/0.25) * band(front+1-math.Floor(front+1), 0.42)
		}
	}
	// Clavicles rise from the sternum to the shoulder.
	if a > 0.03 && a < 0.40 {
		d := math.Abs(y - (p.clavicle + 0.050 - 0.16*a + 0.35*(a-0.2)*(a-0.2)))
		t += 0.22 * (1 - smooth((d-0.010)/0.008)) * smooth((a-0.03)/0.03) * smooth((0.40-a)/0.1)
	}
	if p.breast > 0 {
		dx, dy := (a-0.22)/0.17, (y-0.63)/0.15
		t += p.breast * smooth((1-dx*dx-dy*dy)/0.5)
	}
	for _, s := range p.shade {
		dx, dy := (x-s[0])/0.22, (y-s[1])/0.18
		t += s[2] * smooth(1-dx*dx-dy*dy)
	}
	return max(t, 0)
}

// band returns the density across a rib. f in [0, 1) is the position in one
// period of ribs, width the share of it that is bone. The two borders are
// denser than the middle.
func band(f, width float64) float64 {
	d := math.Abs(f-0.5) / (width / 2) // 0 in the middle, 1 at the border
	return (1 - smooth((d-0.85)/0.3)) * (0.7 + 0.45*smooth((d-0.45)/0.4))
}

// draw returns the film and its mask.
func (p *patient) draw(r *rand.Rand) (img, mask *image.Gray) {
	t := make([]float32, grid*grid)
	for j := range grid {
		for i := range grid {
			x, y := p.body((float64(i)+0.5)/grid, (float64(j)+0.5)/grid)
			t[j*grid+i] = float32(p.density(x, y))
		}
	}
	for i := range p.lungs {
		p.branch(r, t, &p.lungs[i])
	}
	img = p.develop(r, t)
	label(img)
	return img, p.truth()
}

// branch draws the vessels of a lung: curved lines that start at the hilum,
// become thinner outwards, and end before the border of the lung.
func (p *patient) branch(r *rand.Rand, t []float32, l *lung) {
	for range p.vessels {
		angle := between(r, -1.35, 1.25) // from nearly straight up to steeply down
		a, y := l.medial+between(r, -0.01, 0.05), between(r, 0.40, 0.56)
		length := between(r, 0.12, 0.34)
		const step = 0.5 / grid
		bend := between(r, -1.5, 1.5)
		n := int(length / step)
		strength, radius := between(r, 0.05, 0.13), between(r, 0.0030, 0.0065)
		for k := range n {
			f := 1 - float64(k)/float64(n)
			angle += bend*step + between(r, -0.06, 0.06)
			a += step * math.Cos(angle)
			y += step * math.Sin(angle)
			in := l.field(a, y, 0, 0)
			if l.gap != nil {
				in = min(in, l.inner(a, y))
			}
			if in < 0.010 || l.floor(a, y) < 0.01 {
				break
			}
			// Convert from the axes of the body back to the film.
			x := a * l.side
			dx, dy := x*p.zoom, (y-0.5)*p.zoom
			fx, fy := p.cx+p.cos*dx-p.sin*dy, 0.5+p.cy+p.sin*dx+p.cos*dy
			stamp(t, fx*grid, fy*grid, radius*(0.35+0.65*f)*grid, float32(strength*f*0.35))
		}
	}
}

// stamp adds a soft disc to the array.
func stamp(t []float32, x, y, radius float64, amount float32) {
	x0, x1 := max(int(x-radius), 0), min(int(x+radius)+1, grid-1)
	y0, y1 := max(int(y-radius), 0), min(int(y+radius)+1, grid-1)
	inv := float32(1 / (radius * radius))
	for j := y0; j <= y1; j++ {
		dy := float32(j) + 0.5 - float32(y)
		for i := x0; i <= x1; i++ {
			dx := float32(i) + 0.5 - float32(x)
			if q := 1 - (dx*dx+dy*dy)*inv; q > 0 {
				t[j*grid+i] += amount * q
			}
		}
	}
}

// develop turns densities into grey values, 255·(1-exp(-t)), like photons that
// are absorbed on their way. It doubles the size and adds grain.
func (p *patient) develop(r *rand.Rand, t []float32) *image.Gray {
	k := 0.98 * p.exposure
	for i, v := range t {
		t[i] = float32(6 + 238*(1-math.Exp(-k*float64(v))))
	}
	var grain [1 << 14]float32
	for i := range grain {
		grain[i] = float32(p.grain * r.NormFloat64())
	}
	img := image.NewGray(image.Rect(0, 0, Size, Size))
	row := make([]float32, grid)
	for y := range Size {
		// The centres of the film's pixels lie at one quarter and three quarters
		// of a cell.
		near := y / 2
		far := min(max(near-1+2*(y%2), 0), grid-1)
		for i := range row {
			row[i] = 0.75*t[near*grid+i] + 0.25*t[far*grid+i]
		}
		at := r.IntN(len(grain))
		out := img.Pix[y*img.Stride:][:Size]
		for i, v := range row {
			left, right := row[max(i-1, 0)], row[min(i+1, grid-1)]
			out[2*i] = grey(0.75*v + 0.25*left + grain[(at+2*i)%len(grain)])
			out[2*i+1] = grey(0.75*v + 0.25*right + grain[(at+2*i+1)%len(grain)])
		}
	}
	return img
}

func grey(v float32) uint8 { return uint8(min(max(v+0.5, 0), 255)) }

// truth returns the mask: the part of the lung field that the collapsed lung
// does not fill, as far as heart and diaphragm do not cover it.
func (p *patient) truth() *image.Gray {
	mask := image.NewGray(image.Rect(0, 0, Size, Size))
	for i := range p.lungs {
		l := &p.lungs[i]
		if l.gap == nil {
			continue
		}
		for py := range Size {
			for px := range Size {
				x, y := p.body((float64(px)+0.5)/Size, (float64(py)+0.5)/Size)
				a := x * l.side
				if a > l.medial && l.field(a, y, 0, 0) > 0.008 && l.inner(a, y) < 0 &&
					l.floor(a, y) > 0.007 && p.heartAt(x, y) < 0.03 {
					mask.Pix[py*mask.Stride+px] = 255
				}
			}
		}
	}
	return mask
}

// label burns the word PHANTOM and the side marker into the film.
func label(img *image.Gray) {
	const scale = 3
	stencil := image.NewAlpha(image.Rect(0, 0, 60, 16))
	write := func(text string, left, top int) {
		clear(stencil.Pix)
		d := font.Drawer{Dst: stencil, Src: image.NewUniform(color.Opaque), Face: basicfont.Face7x13, Dot: fixed.P(1, 12)}
		d.DrawString(text)
		for y := range 16 * scale {
			for x := range 60 * scale {
				if stencil.Pix[y/scale*stencil.Stride+x/scale] > 127 {
					img.Pix[(top+y)*img.Stride+left+x] = 235
				}
			}
		}
	}
	write("PHANTOM", 24, 20)
	write("L", Size-72-8, 20)
}

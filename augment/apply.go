package augment

import (
	"fmt"
	"math"
)

// Image applies p to an image of one or more channels, (C, SrcH, SrcW) values in
// [0, 1], and returns (C, H, W). The result is written to dst if that has the
// capacity, else to a new slice; dst must not overlap src. It panics if the
// length of src is not a multiple of SrcH*SrcW.
func (p *Plan) Image(dst, src []float32) []float32 {
	n := p.SrcH * p.SrcW
	if n == 0 || len(src)%n != 0 {
		panic(fmt.Errorf("augment: image of %d values; the plan is for a multiple of %dx%d", len(src), p.SrcH, p.SrcW))
	}
	dst = room(dst, len(src)/n*p.H*p.W)
	if !p.Resample {
		for c := range len(src) / n {
			cut(p, dst[c*p.H*p.W:][:p.H*p.W], src[c*n:][:n])
		}
	} else {
		source := raster{pix: src, h: p.SrcH, w: p.SrcW, c: len(src) / n}
		if p.AreaH > 0 {
			source = source.average(p.AreaH, p.AreaW)
		}
		p.sample(dst, source)
	}
	if p.Lighting {
		relight(dst, p.LogitShift, p.LogitScale)
	}
	return dst
}

// Mask applies p to a mask of SrcH*SrcW values of any type, and returns H*W
// values. The geometry is that of [Plan.Image], but each output pixel takes the
// value of the nearest source pixel, and lighting does not change a mask. The
// result is written to dst if that has the capacity, else to a new slice; dst
// must not overlap src. It panics if src does not have that length.
func Mask[T any](p *Plan, dst, src []T) []T {
	if len(src) != p.SrcH*p.SrcW {
		panic(fmt.Errorf("augment: mask of %d values; the plan is for %dx%d", len(src), p.SrcH, p.SrcW))
	}
	dst = room(dst, p.H*p.W)
	if !p.Resample {
		cut(p, dst, src)
		return dst
	}
	var zero T
	l := newLattice(p, p.SrcH, p.SrcW)
	var xs, ys [chunk]float64
	for i := 0; i < len(dst); {
		n := l.positions(i, &xs, &ys)
		for k := range n {
			x, y := int(math.RoundToEven(xs[k])), int(math.RoundToEven(ys[k]))
			if uint(x) < uint(p.SrcW) && uint(y) < uint(p.SrcH) {
				dst[i+k] = src[y*p.SrcW+x]
			} else { // outside the source; only with Zeros
				dst[i+k] = zero
			}
		}
		i += n
	}
	return dst
}

// cut crops and flips one channel without sampling it.
func cut[T any](p *Plan, dst, src []T) {
	for r := range p.H {
		from, to := src[(p.Top+r)*p.SrcW:][:p.SrcW], dst[r*p.W:][:p.W]
		if !p.Flip {
			copy(to, from[p.Left:])
			continue
		}
		last := p.SrcW - 1 - p.Left
		for c := range to {
			to[c] = from[last-c]
		}
	}
}

func room[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// A raster is a source of pixels.
type raster struct {
	pix     []float32
	c, h, w int
}

// average returns r reduced to h x w: along an axis, pixel i of n is the mean
// of the source pixels from floor(i*size/n) up to, but without,
// ceil((i+1)*size/n).
func (r raster) average(h, w int) raster {
	span := func(i, size, n int) (first, end int) { return i * size / n, ((i+1)*size + n - 1) / n }
	type interval struct{ first, end int }
	cols := make([]interval, w)
	for x := range cols {
		cols[x].first, cols[x].end = span(x, r.w, w)
	}
	out := raster{make([]float32, r.c*h*w), r.c, h, w}
	for i := range r.c * h {
		to := out.pix[i*w:][:w]
		first, end := span(i%h, r.h, h)
		for y := first; y < end; y++ {
			line := r.pix[(i/h*r.h+y)*r.w:][:r.w]
			for x, c := range cols {
				sum := to[x]
				for _, v := range line[c.first:c.end] {
					sum += v
				}
				to[x] = sum
			}
		}
		for x, c := range cols {
			to[x] /= float32((end - first) * (c.end - c.first))
		}
	}
	return out
}

// framed returns r within a frame of zeros, one pixel wide.
func (r raster) framed() raster {
	out := raster{make([]float32, r.c*(r.h+2)*(r.w+2)), r.c, r.h + 2, r.w + 2}
	for c := range r.c {
		for y := range r.h {
			copy(out.pix[(c*out.h+y+1)*out.w+1:], r.pix[(c*r.h+y)*r.w:][:r.w])
		}
	}
	return out
}

// sample fills dst with bilinear samples of every channel.
func (p *Plan) sample(dst []float32, src raster) {
	l := newLattice(p, src.h, src.w)
	shift := 0.0
	if p.Padding == Zeros { // samples outside read the frame of zeros, whose edge repeats
		src = src.framed()
		shift = 1
	}
	plane := p.H * p.W
	right, below := min(1, src.w-1), min(1, src.h-1)*src.w
	lastX, lastY := max(src.w-2, 0), max(src.h-2, 0)
	var xs, ys [chunk]float64
	var fx, fy [chunk]float32
	var at [chunk]int
	for i := 0; i < plane; {
		n := l.positions(i, &xs, &ys)
		for k := range n {
			x, y := xs[k], ys[k]
			if shift != 0 {
				x = min(max(x+shift, 0), float64(src.w-1))
				y = min(max(y+shift, 0), float64(src.h-1))
			}
			x0, y0 := min(int(x), lastX), min(int(y), lastY)
			fx[k], fy[k] = float32(x-float64(x0)), float32(y-float64(y0))
			at[k] = y0*src.w + x0
		}
		for c := range src.c {
			pix, out := src.pix[c*src.h*src.w:][:src.h*src.w], dst[c*plane+i:][:n]
			for k := range out {
				a, x, y := at[k], fx[k], fy[k]
				top := pix[a]*(1-x) + pix[a+right]*x
				bottom := pix[a+below]*(1-x) + pix[a+below+right]*x
				out[k] = top*(1-y) + bottom*y
			}
		}
		i += n
	}
}

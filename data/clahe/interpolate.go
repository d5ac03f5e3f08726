package clahe

import "image"

// interpolate sets every pixel to the weighted mean of the mappings of the four
// nearest tiles.
//
// The image is divided into blocks of the size of a tile, shifted by half a
// tile, so that the corners of a block are the centres of four tiles. The
// weight of a corner is the product, in float64, of a share along the columns
// and a share along the rows, each a multiple of 1/size. The products of the
// four weights with the levels are rounded to float32 and summed in float32, in
// the order of scikit-image, and the sum is truncated.
func (e *Equalizer) interpolate(img *image.Gray) {
	if cap(e.weights) < 4*e.kc {
		e.weights = make([]float64, 4*e.kc)
		e.colShare = make([]float64, e.kc)
	}
	w := e.weights[:4*e.kc]
	share := e.colShare[:e.kc]
	for c := range share {
		share[c] = float64(c) / float64(e.kc)
	}
	lo, hi := uint16(top), uint16(0)
	for y := range e.rows {
		block, r := (y+e.kr/2)/e.kr, (y+e.kr/2)%e.kr
		above, below := max(block-1, 0)*e.nc, min(block, e.nr-1)*e.nc
		down := float64(r) / float64(e.kr)
		for c, right := range share {
			w[4*c+0] = (1 - right) * (1 - down)
			w[4*c+1] = right * (1 - down)
			w[4*c+2] = (1 - right) * down
			w[4*c+3] = right * down
		}
		from := img.Pix[y*img.Stride:][:e.cols]
		to := e.levels[y*e.cols:][:e.cols]
		for x := 0; x < e.cols; {
			block, c := (x+e.kc/2)/e.kc, (x+e.kc/2)%e.kc
			left, right := max(block-1, 0), min(block, e.nc-1)
			n := min(e.kc-c, e.cols-x)
			l, h := blend(to[x:x+n], from[x:x+n], w[4*c:],
				&e.maps[above+left], &e.maps[above+right], &e.maps[below+left], &e.maps[below+right])
			lo, hi = min(lo, l), max(hi, h)
			x += n
		}
	}
	e.lo, e.hi = lo, hi
}

// blend maps the pixels of one row of one block and returns the lowest and the
// highest level that it wrote; w holds four weights for each pixel.
func blend(to []uint16, from []uint8, w []float64, a, b, c, d *[grey]float64) (lo, hi uint16) {
	lo = top
	to = to[:len(from)]
	for x, v := range from {
		k := w[4*x : 4*x+4 : 4*x+4]
		s := float32(a[v] * k[0])
		s += float32(b[v] * k[1])
		s += float32(c[v] * k[2])
		s += float32(d[v] * k[3])
		u := uint16(int32(s))
		to[x] = u
		lo, hi = min(lo, u), max(hi, u)
	}
	return lo, hi
}

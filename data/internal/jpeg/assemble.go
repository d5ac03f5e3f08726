package jpeg

// assemble crops the planes to the size of the image, enlarges chroma to full
// size and interleaves the components.
func assemble[T uint8 | uint16](d *decoder, plane func(*component) []T) []T {
	w, h, n := d.img.Width, d.img.Height, d.img.Components
	if n == 1 {
		pix, stride := fullSize(d, &d.comps[0], plane)
		if stride != w {
			for y := range h {
				copy(pix[y*w:(y+1)*w], pix[y*stride:])
			}
		}
		return pix[: w*h : w*h]
	}
	out := make([]T, w*h*n)
	for i := range d.comps {
		full, stride := fullSize(d, &d.comps[i], plane)
		for y := range h {
			row := full[y*stride : y*stride+w]
			for x, v := range row {
				out[(y*w+x)*n+i] = v
			}
		}
	}
	return out
}

// fullSize returns the plane of c at the resolution of the image, and its stride.
func fullSize[T uint8 | uint16](d *decoder, c *component, plane func(*component) []T) ([]T, int) {
	w, h := ceil(d.img.Width*c.h, d.hmax), ceil(d.img.Height*c.v, d.vmax)
	return upsample(plane(c), c.stride, w, h, d.hmax/c.h, d.vmax/c.v)
}

// upsample enlarges a plane of w x h samples fx times across and fy times down.
// For a factor of 2 it uses the triangle filter, 3/4 of the nearer sample and
// 1/4 of the farther, rounded as the Independent JPEG Group does ("fancy
// upsampling"); for other factors it repeats samples. It returns h*fy rows and
// their stride.
func upsample[T uint8 | uint16](src []T, stride, w, h, fx, fy int) ([]T, int) {
	if fx == 1 && fy == 1 {
		return src, stride
	}
	dst := make([]T, w*fx*h*fy)
	switch {
	case fx == 2 && fy == 1 && w > 2:
		for y := range h {
			widen(dst[y*2*w:], src[y*stride:y*stride+w])
		}
	case fx == 2 && fy == 2 && w > 2:
		for y := range 2 * h {
			near := y / 2
			far := min(max(near-1+y%2*2, 0), h-1)
			widen2(dst[y*2*w:], src[near*stride:near*stride+w], src[far*stride:far*stride+w])
		}
	default:
		for y := range h * fy {
			for x := range w * fx {
				dst[y*w*fx+x] = src[y/fy*stride+x/fx]
			}
		}
	}
	return dst, w * fx
}

// widen doubles a row of at least three samples.
func widen[T uint8 | uint16](dst, src []T) {
	n := len(src)
	dst[0], dst[2*n-1] = src[0], src[n-1]
	for i := range n {
		v := 3 * int(src[i])
		if i > 0 {
			dst[2*i] = T((v + int(src[i-1]) + 1) >> 2)
		}
		if i < n-1 {
			dst[2*i+1] = T((v + int(src[i+1]) + 2) >> 2)
		}
	}
}

// widen2 mixes a row with the farther row and doubles the result.
func widen2[T uint8 | uint16](dst, near, far []T) {
	n := len(near)
	sum := func(i int) int { return 3*int(near[i]) + int(far[i]) }
	dst[0], dst[2*n-1] = T((4*sum(0)+8)>>4), T((4*sum(n-1)+7)>>4)
	for i := range n {
		v := 3 * sum(i)
		if i > 0 {
			dst[2*i] = T((v + sum(i-1) + 8) >> 4)
		}
		if i < n-1 {
			dst[2*i+1] = T((v + sum(i+1) + 7) >> 4)
		}
	}
}

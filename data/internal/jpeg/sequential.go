package jpeg

// sequential decodes a baseline or extended scan directly to samples.
func (d *decoder) sequential(sc *scan) error {
	for _, c := range sc.comps {
		c.seen = true
		if !c.unused {
			d.plane(c)
		}
	}
	reset := func() {
		for _, c := range sc.comps {
			c.pred = 0
		}
	}
	var b block
	if len(sc.comps) == 1 {
		c := sc.comps[0]
		x, y := 0, 0
		return d.entropy(sc.nx*sc.ny, d.restart, reset, func(int) error {
			err := d.block(c, &b, x, y)
			if x++; x == sc.nx {
				x, y = 0, y+1
			}
			return err
		})
	}
	return d.entropy(sc.nx*sc.ny, d.restart, reset, func(i int) error {
		for _, c := range sc.comps {
			for j := range c.h * c.v {
				if err := d.block(c, &b, i%sc.nx*c.h+j%c.h, i/sc.nx*c.v+j/c.h); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// plane allocates the sample plane of c. The whole plane is allocated if there
// is at least one coded byte per sixteen samples; otherwise the plane grows with
// the blocks that are decoded.
func (d *decoder) plane(c *component) {
	n := min(c.stride*c.rows, max(16*len(d.src), 8*c.stride))
	if d.img.Precision == 8 {
		c.pix8 = make([]uint8, n)
	} else {
		c.pix16 = make([]uint16, n)
	}
}

// grown returns pix with at least n samples and at most most.
func grown[T uint8 | uint16](pix []T, n, most int) []T {
	if n <= len(pix) {
		return pix
	}
	bigger := make([]T, min(max(n, 2*len(pix)), most))
	copy(bigger, pix)
	return bigger
}

// block decodes the block in column x and row y of c.
func (d *decoder) block(c *component, b *block, x, y int) error {
	last, err := d.coefficients(c, b)
	if err != nil || c.unused {
		return err
	}
	d.samples(c, b, last, x, y)
	return nil
}

// samples transforms the block b into column x and row y of the plane of c.
func (d *decoder) samples(c *component, b *block, last, x, y int) {
	at, end := y*8*c.stride+x*8, (y+1)*8*c.stride
	if d.img.Precision == 8 {
		c.pix8 = grown(c.pix8, end, c.stride*c.rows)
		idct8(b, last, c.pix8[at:], c.stride)
	} else {
		c.pix16 = grown(c.pix16, end, c.stride*c.rows)
		store12(b, c.pix16[at:], c.stride)
	}
}

// coefficients reads a block, dequantizes it into b, and returns the zigzag
// index of the last coefficient that is not zero (T.81 F.2.2).
func (d *decoder) coefficients(c *component, b *block) (last int, err error) {
	*b = block{}
	r := &d.r
	q := &d.quant[c.tq]
	s, ok := r.symbol(&d.huff[0][c.dc])
	if !ok {
		return 0, errCode
	}
	if s > 15 {
		return 0, errBits
	}
	c.pred += extend(r.take(uint(s)), uint(s))
	b.set(0, c.pred*q[0])

	h := &d.huff[1][c.ac]
	acc, n := r.acc, r.n
	k := 1
	for k < 64 {
		if n < 32 {
			r.acc, r.n = acc, n
			r.refill()
			acc, n = r.acc, r.n
		}
		if e := h.ac[acc>>(64-lutBits)]; e != 0 {
			bits := uint(e & 15)
			acc <<= bits
			n -= bits
			if k += int(uint8(e >> 8)); k > 63 {
				if e>>16 != 0 {
					return 0, errRun
				}
				k = 64
				break
			}
			at := zigzag[k&63] & 63
			b.set(at, e>>16*q[at])
			last = k
			k++
			continue
		}
		r.acc, r.n = acc, n
		sym, ok := r.symbol(h)
		if !ok {
			return 0, errCode
		}
		run, s := int(sym>>4), uint(sym&15)
		if s == 0 {
			acc, n = r.acc, r.n
			if run != 15 {
				break // an end of block whose code is longer than lutBits
			}
			k += 16
			continue
		}
		v := extend(r.take(s), s)
		acc, n = r.acc, r.n
		k += run
		at := zigzag[k] & 63
		b.set(at, v*q[at])
		last = k
		k++
	}
	r.acc, r.n = acc, n
	if k > 64 {
		return 0, errRun
	}
	if r.overrun() {
		return 0, errOverrun
	}
	return last, nil
}

// store12 transforms b and writes it, level-shifted and clamped to 0..4095.
func store12(b *block, dst []uint16, stride int) {
	s := idct(b, 1)
	for y := range 8 {
		for x, v := range s[8*y : 8*y+8] {
			dst[y*stride+x] = uint16(min(max(v+2048, 0), 4095))
		}
	}
}

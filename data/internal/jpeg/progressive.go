package jpeg

// maxScans is the largest number of scans of a progressive image. Each scan
// goes through every block. Encoders use about ten.
const maxScans = 256

// progressive reads one scan into the coefficients of its components
// (T.81 annex G).
func (d *decoder) progressive(sc *scan) error {
	for _, c := range sc.comps {
		c.seen = true
		if c.coef == nil {
			c.coef = make([][]int16, c.rows/8)
		}
		for k := sc.ss; k <= sc.se; k++ {
			c.final[k] = sc.al == 0
		}
	}
	reset := func() {
		d.eobrun = 0
		for _, c := range sc.comps {
			c.pred = 0
		}
	}
	read := d.dcFirst
	switch {
	case sc.ss == 0 && sc.ah > 0:
		read = d.dcRefine
	case sc.ss > 0 && sc.ah == 0:
		read = d.acFirst
	case sc.ss > 0:
		read = d.acRefine
	}
	if len(sc.comps) == 1 {
		c := sc.comps[0]
		return d.entropy(sc.nx*sc.ny, d.restart, reset, func(i int) error {
			return read(sc, c, c.block(i%sc.nx, i/sc.nx))
		})
	}
	return d.entropy(sc.nx*sc.ny, d.restart, reset, func(i int) error {
		for _, c := range sc.comps {
			for j := range c.h * c.v {
				if err := read(sc, c, c.block(i%sc.nx*c.h+j%c.h, i/sc.nx*c.v+j/c.h)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// block returns the 64 coefficients, row-major, of the block in column x and
// row y. A row of blocks is allocated when the first scan reaches it, so that a
// stream that ends early does not take the memory of a whole image.
func (c *component) block(x, y int) []int16 {
	if c.coef[y] == nil {
		c.coef[y] = make([]int16, 8*c.stride)
	}
	return c.coef[y][64*x : 64*x+64 : 64*x+64]
}

func (d *decoder) dcFirst(sc *scan, c *component, b []int16) error {
	s, ok := d.r.symbol(&d.huff[0][c.dc])
	if !ok {
		return errCode
	}
	if s > 15 {
		return errBits
	}
	c.pred += extend(d.r.take(uint(s)), uint(s))
	b[0] = int16(c.pred << sc.al)
	return d.check()
}

func (d *decoder) dcRefine(sc *scan, _ *component, b []int16) error {
	if d.r.take(1) != 0 {
		b[0] |= 1 << sc.al
	}
	return d.check()
}

func (d *decoder) acFirst(sc *scan, c *component, b []int16) error {
	if d.eobrun > 0 {
		d.eobrun--
		return nil
	}
	for k := sc.ss; k <= sc.se; k++ {
		sym, ok := d.r.symbol(&d.huff[1][c.ac])
		if !ok {
			return errCode
		}
		run, s := int(sym>>4), uint(sym&15)
		if s == 0 {
			if run == 15 {
				k += 15
				continue
			}
			d.eobrun = 1<<run - 1 + d.r.take(uint(run))
			break
		}
		if k += run; k > sc.se {
			return errRun
		}
		b[zigzag[k]] = int16(extend(d.r.take(s), s) << sc.al)
	}
	return d.check()
}

// acRefine reads new coefficients of magnitude one, and a correction bit for
// every coefficient other than zero on the way to them (T.81 G.1.2.3).
func (d *decoder) acRefine(sc *scan, c *component, b []int16) error {
	k := sc.ss
	for d.eobrun == 0 && k <= sc.se {
		sym, ok := d.r.symbol(&d.huff[1][c.ac])
		if !ok {
			return errCode
		}
		run, s := int(sym>>4), sym&15
		fresh := int16(0)
		switch {
		case s == 1:
			fresh = -1 << sc.al
			if d.r.take(1) != 0 {
				fresh = 1 << sc.al
			}
		case s != 0:
			return errBits
		case run != 15:
			d.eobrun = 1<<run + d.r.take(uint(run))
			continue
		}
		k = d.correct(sc, b, k, run)
		if k > sc.se {
			if fresh != 0 {
				return errRun
			}
			break
		}
		if fresh != 0 {
			b[zigzag[k]] = fresh
		}
		k++
	}
	if d.eobrun > 0 {
		d.correct(sc, b, k, 64)
		d.eobrun--
	}
	return d.check()
}

// correct reads the correction bits from coefficient k on, skips as many zero
// coefficients as zeros says, and returns the index of the next zero
// coefficient.
func (d *decoder) correct(sc *scan, b []int16, k, zeros int) int {
	for ; k <= sc.se; k++ {
		v := &b[zigzag[k]]
		if *v == 0 {
			if zeros == 0 {
				break
			}
			zeros--
			continue
		}
		if d.r.take(1) != 0 && *v&(1<<sc.al) == 0 {
			if *v > 0 {
				*v += 1 << sc.al
			} else {
				*v -= 1 << sc.al
			}
		}
	}
	return k
}

// check returns an error if the entropy data ended inside a block.
func (d *decoder) check() error {
	if d.r.overrun() {
		return errOverrun
	}
	return nil
}

// reconstruct turns the coefficients of a progressive image into samples.
func (d *decoder) reconstruct() {
	for i := range d.comps {
		c := &d.comps[i]
		if c.unused {
			continue
		}
		d.plane(c)
		q := &d.quant[c.tq]
		for y := range c.blocks[1] {
			for x := range c.blocks[0] {
				var b block
				last := 0
				coef := c.block(x, y)
				for k := range 64 {
					at := zigzag[k]
					if coef[at] != 0 {
						b.set(at, int32(coef[at])*q[at])
						last = k
					}
				}
				d.samples(c, &b, last, x, y)
			}
			c.coef[y] = nil
		}
	}
}

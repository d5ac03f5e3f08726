package jpeg

// lossless decodes a scan of process 14 (T.81 annex H).
func (d *decoder) lossless(sc *scan, at int) error {
	w, h, n := d.img.Width, d.img.Height, d.img.Components
	p := d.img.Precision
	if sc.ss < 1 || sc.ss > 7 || sc.se != 0 || sc.ah != 0 || int(sc.al) >= p {
		return d.errorf(at, "bad lossless scan: predictor %d, point transform %d of %d bits", sc.ss, sc.al, p)
	}
	var rows []*huffman
	var which []int // index in a pixel of each component of the scan
	for _, c := range sc.comps {
		if c.h != 1 || c.v != 1 {
			return UnsupportedError("lossless with subsampling")
		}
		if !d.huff[0][c.dc].ok {
			return d.errorf(at, "scan uses a Huffman table that was not defined")
		}
		if c.seen {
			return d.errorf(at, "second scan of component %d", c.id)
		}
		c.seen = true
		rows = append(rows, &d.huff[0][c.dc])
		for i := range d.comps {
			if &d.comps[i] == c {
				which = append(which, i)
			}
		}
	}
	if d.restart%w != 0 {
		return d.errorf(at, "restart every %d pixels, want a multiple of the width %d", d.restart, w)
	}
	if p <= 8 {
		if d.img.Pix8 == nil {
			d.img.Pix8 = make([]uint8, w*h*n)
		}
		return losslessScan(d, sc, d.img.Pix8, rows, which)
	}
	if d.img.Pix16 == nil {
		d.img.Pix16 = make([]uint16, w*h*n)
	}
	return losslessScan(d, sc, d.img.Pix16, rows, which)
}

// losslessScan decodes row by row. Differences and predictions are computed
// modulo 65536 and before the point transform, so a row is shifted only when
// the next row no longer needs it.
func losslessScan[T uint8 | uint16](d *decoder, sc *scan, pix []T, tables []*huffman, which []int) error {
	w, n := d.img.Width, d.img.Components
	first := true // the row is the first one after a restart
	row := make([]int32, w*len(which))
	above := make([]int32, w*len(which))
	start := int32(1) << (d.img.Precision - int(sc.al) - 1)
	return d.entropy(d.img.Height, d.restart/w, func() { first = true }, func(y int) error {
		if err := losslessRow(&d.r, row, above, tables, sc.ss, start, first); err != nil {
			return err
		}
		first = false
		for x := range w {
			for j, c := range which {
				pix[(y*w+x)*n+c] = T(row[x*len(which)+j] << sc.al)
			}
		}
		row, above = above, row
		if d.r.overrun() {
			return errOverrun
		}
		return nil
	})
}

// losslessRow decodes a row of len(tables) interleaved components. In the first
// row, pixels are predicted only from the left, and the first pixel from start.
// In other rows the first pixel is predicted from the row above.
func losslessRow(r *bitReader, row, above []int32, tables []*huffman, predictor int, start int32, first bool) error {
	n := len(tables)
	for i := range row {
		diff, ok := r.difference(tables[i%n])
		if !ok {
			return errCode
		}
		var p int32
		switch {
		case i < n && first:
			p = start
		case i < n:
			p = above[i]
		case first:
			p = row[i-n]
		default:
			p = predict(predictor, row[i-n], above[i], above[i-n])
		}
		row[i] = (p + diff) & 0xFFFF
	}
	return nil
}

// predict returns predictor 1 to 7 from the left, the upper and the upper left
// neighbour (T.81 table H.1).
func predict(predictor int, a, b, c int32) int32 {
	switch predictor {
	case 1:
		return a
	case 2:
		return b
	case 3:
		return c
	case 4:
		return a + b - c
	case 5:
		return a + (b-c)>>1
	case 6:
		return b + (a-c)>>1
	default:
		return (a + b) >> 1
	}
}

// difference reads one difference (T.81 H.1.2.2).
func (r *bitReader) difference(h *huffman) (int32, bool) {
	if r.n < 32 {
		r.refill()
	}
	if e := h.ac[r.acc>>(64-lutBits)]; e != 0 {
		r.acc <<= uint(e & 15)
		r.n -= uint(e & 15)
		run := e >> 8 & 0xFF // a difference of 0 looks like an end of block
		return e >> 16, run == 0 || run == endOfBlock
	}
	s, ok := r.symbol(h)
	if s == 16 {
		return 32768, ok
	}
	if !ok || s > 16 {
		return 0, false
	}
	return extend(r.take(uint(s)), uint(s)), true
}

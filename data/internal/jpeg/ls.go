package jpeg

// JPEG-LS (ITU-T T.87), lossless and near-lossless. The letters below are those
// of the standard.

// An lsPreset holds the coding parameters that an LSE segment may set; zeros
// mean the defaults.
type lsPreset struct{ maxval, t1, t2, t3, reset int32 }

// lsExtension reads an LSE segment (T.87 C.2.4).
func (d *decoder) lsExtension(s []byte, at int) error {
	if len(s) < 1 || s[0] != 1 {
		return UnsupportedError("JPEG-LS with mapping tables or oversize images")
	}
	if len(s) != 11 {
		return d.errorf(at, "preset parameters of %d bytes, want 11", len(s))
	}
	word := func(i int) int32 { return int32(s[1+2*i])<<8 | int32(s[2+2*i]) }
	d.preset = lsPreset{word(0), word(1), word(2), word(3), word(4)}
	return nil
}

// An lsContext holds the statistics of one kind of neighbourhood.
type lsContext struct{ a, b, c, n, nn int32 }

// An lsScan is the state of one scan.
type lsScan struct {
	near, maxval, step int32 // step is 2*near + 1
	span               int32 // RANGE
	qbpp, limit        int32
	t1, t2, t3, reset  int32
	regular            [365]lsContext
	run                [2]lsContext // run interruption with RItype 0 and 1
	r                  lsReader
}

// runLength[i] is the base-2 logarithm of the run that one bit codes: J of T.87
// A.2.1.
var runLength = [32]uint{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// newLS computes the parameters of a scan (T.87 A.2.1 and C.2.4.1.1.1).
func (d *decoder) newLS(near int32, at int) (*lsScan, error) {
	p := d.preset
	s := &lsScan{near: near, step: 2*near + 1, maxval: 1<<d.img.Precision - 1, reset: 64}
	if p.maxval != 0 {
		s.maxval = p.maxval
	}
	if s.maxval >= 1<<d.img.Precision || near > min(255, s.maxval/2) {
		return nil, d.errorf(at, "maximum %d and error %d in %d bits", s.maxval, near, d.img.Precision)
	}
	log := func(v int32) (n int32) {
		for int32(1)<<n < v {
			n++
		}
		return n
	}
	s.span = (s.maxval+2*near)/s.step + 1
	s.qbpp = log(s.span)
	bpp := max(2, log(s.maxval+1))
	s.limit = 2 * (bpp + max(8, bpp))

	clamp := func(v, least int32) int32 {
		if v > s.maxval || v < least {
			return least
		}
		return v
	}
	if s.maxval >= 128 {
		f := (min(s.maxval, 4095) + 128) / 256
		s.t1 = clamp(f+2+3*near, near+1)
		s.t2 = clamp(4*f+3+5*near, s.t1)
		s.t3 = clamp(17*f+4+7*near, s.t2)
	} else {
		f := 256 / (s.maxval + 1)
		s.t1 = clamp(max(2, 3/f+3*near), near+1)
		s.t2 = clamp(max(3, 7/f+5*near), s.t1)
		s.t3 = clamp(max(4, 21/f+7*near), s.t2)
	}
	for _, v := range []struct{ to, from *int32 }{{&s.t1, &p.t1}, {&s.t2, &p.t2}, {&s.t3, &p.t3}, {&s.reset, &p.reset}} {
		if *v.from != 0 {
			*v.to = *v.from
		}
	}
	if s.t1 <= near || s.t2 < s.t1 || s.t3 < s.t2 || s.t3 > s.maxval && s.t3 > s.t2 || s.reset < 3 {
		return nil, d.errorf(at, "thresholds %d, %d, %d, reset %d", s.t1, s.t2, s.t3, s.reset)
	}
	a := max(2, (s.span+32)/64)
	for i := range s.regular {
		s.regular[i] = lsContext{a: a, n: 1}
	}
	s.run = [2]lsContext{{a: a, n: 1}, {a: a, n: 1}}
	return s, nil
}

// Interleave modes.
const (
	ilvNone   = 0
	ilvLine   = 1
	ilvSample = 2
)

// ls decodes a JPEG-LS scan.
func (d *decoder) ls(sc *scan, at int) error {
	n := len(sc.comps)
	if sc.se > ilvSample || (sc.se == ilvNone) != (n == 1) || sc.al != 0 || sc.ah != 0 {
		return d.errorf(at, "scan of %d components with interleave mode %d", n, sc.se)
	}
	if d.restart != 0 {
		return UnsupportedError("JPEG-LS with restart markers")
	}
	for _, c := range sc.comps {
		switch {
		case c.h != 1 || c.v != 1:
			return UnsupportedError("JPEG-LS with subsampling")
		case c.dc != 0 || c.ac != 0:
			return UnsupportedError("JPEG-LS with mapping tables")
		case c.seen:
			return d.errorf(at, "second scan of component %d", c.id)
		}
		c.seen = true
	}
	s, err := d.newLS(int32(sc.ss), at)
	if err != nil {
		return err
	}
	end := lsEnd(d.src[d.pos:])
	if end < 0 {
		if !d.lim.OpenEnd || !d.complete() {
			return d.errorf(len(d.src), "the stream ends inside a scan")
		}
		d.img.Open, end = true, len(d.src)-d.pos
	}
	s.r = lsReader{src: d.src[d.pos : d.pos+end]}
	for y := range d.img.Height {
		if err := d.lsRow(s, sc, y); err != nil {
			return d.errorf(d.pos+s.r.pos, "in row %d of %d: %v", y, d.img.Height, err)
		}
	}
	if left := s.r.left(); left >= 16 && !(d.img.Open && padding(s.r.src[len(s.r.src)-left/8:])) {
		return d.errorf(d.pos+s.r.pos, "entropy data go on after row %d", d.img.Height-1)
	}
	d.pos += end
	return nil
}

// lsEnd returns the length of the entropy data at the beginning of b. They end
// at a marker: an FF followed by a byte of 80 or more. It returns -1 without a
// marker.
func lsEnd(b []byte) int {
	for i := 0; i+1 < len(b); i++ {
		if b[i] == 0xFF && b[i+1] >= 0x80 {
			return i
		}
	}
	return -1
}

// lsRow decodes one row of the components of a scan. Rows have one more sample
// at each end, for neighbours outside the image (T.87 A.2.1).
func (d *decoder) lsRow(s *lsScan, sc *scan, y int) error {
	w := d.img.Width
	for _, c := range sc.comps {
		if y == 0 {
			c.row, c.above = make([]int32, w+2), make([]int32, w+2)
		}
		c.row, c.above = c.above, c.row
		c.above[w+1] = c.above[w]
		c.row[0] = c.above[1]
	}
	var err error
	if len(sc.comps) == 3 && sc.se == ilvSample {
		err = s.pixels3(sc.comps)
	} else {
		for _, c := range sc.comps {
			if err = s.line(c); err != nil {
				break
			}
		}
	}
	if err == nil && s.r.overrun() {
		err = errOverrun
	}
	if err != nil {
		return err
	}
	for _, c := range sc.comps {
		if d.img.Precision <= 8 {
			c.pix8 = appendRow(c.pix8, c.row[1:w+1], 16*len(d.src), w*d.img.Height)
		} else {
			c.pix16 = appendRow(c.pix16, c.row[1:w+1], 16*len(d.src), w*d.img.Height)
		}
	}
	return nil
}

// appendRow appends a row to pix. The capacity of pix begins with first
// samples, doubles when it is full, and never exceeds most.
func appendRow[T uint8 | uint16](pix []T, row []int32, first, most int) []T {
	if n := len(pix) + len(row); n > cap(pix) {
		pix = append(make([]T, 0, min(max(n, 2*cap(pix), first), most)), pix...)
	}
	for _, v := range row {
		pix = append(pix, T(v))
	}
	return pix
}

// line decodes a row of one component.
func (s *lsScan) line(c *component) error {
	row, above := c.row, c.above
	for x := 1; x < len(row)-1; {
		ra, rb, rc, rd := row[x-1], above[x], above[x-1], above[x+1]
		q := s.quantize(rd-rb)*81 + s.quantize(rb-rc)*9 + s.quantize(rc-ra)
		if q != 0 {
			v, err := s.sample(q, ra, rb, rc)
			if err != nil {
				return err
			}
			row[x] = v
			x++
			continue
		}
		n, broken, err := s.runOf(c, len(row)-1-x)
		if err != nil {
			return err
		}
		for range n {
			row[x] = ra
			x++
		}
		if broken {
			if row[x], err = s.interruption(c, ra, above[x]); err != nil {
				return err
			}
			x++
		}
	}
	return nil
}

// pixels3 decodes a row of three components that are interleaved by sample. The
// run index of the first component counts for all.
func (s *lsScan) pixels3(comps []*component) error {
	first := comps[0]
	for x := 1; x < len(first.row)-1; {
		var q [3]int32
		for i, c := range comps {
			q[i] = s.quantize(c.above[x+1]-c.above[x])*81 + s.quantize(c.above[x]-c.above[x-1])*9 + s.quantize(c.above[x-1]-c.row[x-1])
		}
		if q != [3]int32{} {
			for i, c := range comps {
				v, err := s.sample(q[i], c.row[x-1], c.above[x], c.above[x-1])
				if err != nil {
					return err
				}
				c.row[x] = v
			}
			x++
			continue
		}
		n, broken, err := s.runOf(first, len(first.row)-1-x)
		if err != nil {
			return err
		}
		for range n {
			for _, c := range comps {
				c.row[x] = c.row[x-1]
			}
			x++
		}
		if broken {
			for _, c := range comps {
				ra, rb := c.row[x-1], c.above[x]
				e, err := s.runError(&s.run[0], 0, first.runIndex)
				if err != nil {
					return err
				}
				if rb < ra {
					e = -e
				}
				c.row[x] = s.reconstruct(rb, e)
			}
			first.runIndex = max(first.runIndex-1, 0)
			x++
		}
	}
	return nil
}

// quantize maps a gradient to -4..4 (T.87 A.3.3).
func (s *lsScan) quantize(d int32) int32 {
	switch {
	case d <= -s.t3:
		return -4
	case d <= -s.t2:
		return -3
	case d <= -s.t1:
		return -2
	case d < -s.near:
		return -1
	case d <= s.near:
		return 0
	case d < s.t1:
		return 1
	case d < s.t2:
		return 2
	case d < s.t3:
		return 3
	}
	return 4
}

// sample decodes a sample in context q (T.87 A.4 to A.6).
func (s *lsScan) sample(q, ra, rb, rc int32) (int32, error) {
	sign := int32(1)
	if q < 0 {
		q, sign = -q, -1
	}
	c := &s.regular[q]
	px := ra + rb - rc
	if rc >= max(ra, rb) {
		px = min(ra, rb)
	} else if rc <= min(ra, rb) {
		px = max(ra, rb)
	}
	px = min(max(px+sign*c.c, 0), s.maxval)

	k := golomb(c.n, c.a)
	m, err := s.r.golomb(k, s.limit, s.qbpp)
	if err != nil {
		return 0, err
	}
	e := m >> 1
	if m&1 != 0 {
		e = -e - 1
	}
	if k == 0 && s.near == 0 && 2*c.b <= -c.n {
		e = -e - 1
	}
	c.b += e * s.step
	c.a += max(e, -e)
	if c.n == s.reset {
		c.a >>= 1
		c.b >>= 1 // rounds down, for negative numbers too: T.87 A.6.1
		c.n >>= 1
	}
	c.n++
	if c.b <= -c.n {
		c.b = max(c.b+c.n, 1-c.n)
		c.c = max(c.c-1, -128)
	} else if c.b > 0 {
		c.b = min(c.b-c.n, 0)
		c.c = min(c.c+1, 127)
	}
	return s.reconstruct(px, sign*e), nil
}

// golomb returns the smallest k for which n<<k is at least a.
func golomb(n, a int32) uint {
	k := uint(0)
	for n<<k < a && k < 24 {
		k++
	}
	return k
}

// reconstruct adds the error e, modulo the range, to the prediction px.
func (s *lsScan) reconstruct(px, e int32) int32 {
	v := px + e*s.step
	if v < -s.near {
		v += s.span * s.step
	} else if v > s.maxval+s.near {
		v -= s.span * s.step
	}
	return min(max(v, 0), s.maxval)
}

// runOf reads the length of a run of at most most samples, and whether it is
// interrupted before the end of the row (T.87 A.7.1).
func (s *lsScan) runOf(c *component, most int) (n int, broken bool, err error) {
	for n < most {
		j := runLength[c.runIndex]
		if s.r.bits(1) == 0 {
			n += int(s.r.bits(j))
			if n >= most {
				return 0, false, errRun
			}
			return n, true, nil
		}
		if n += 1 << j; n <= most {
			c.runIndex = min(c.runIndex+1, 31)
		}
		if s.r.overrun() {
			return 0, false, errOverrun
		}
	}
	return most, false, nil
}

// interruption decodes the sample that ends a run (T.87 A.7.2).
func (s *lsScan) interruption(c *component, ra, rb int32) (int32, error) {
	same := int32(0) // RItype
	if d := ra - rb; d <= s.near && -d <= s.near {
		same = 1
	}
	e, err := s.runError(&s.run[same], same, c.runIndex)
	if err != nil {
		return 0, err
	}
	c.runIndex = max(c.runIndex-1, 0)
	if same == 1 {
		return s.reconstruct(ra, e), nil
	}
	if rb < ra {
		e = -e
	}
	return s.reconstruct(rb, e), nil
}

// runError decodes the error of a run interruption.
func (s *lsScan) runError(c *lsContext, same int32, runIndex int) (int32, error) {
	k := golomb(c.n, c.a+same*(c.n>>1))
	m, err := s.r.golomb(k, s.limit-int32(runLength[runIndex])-1, s.qbpp)
	if err != nil {
		return 0, err
	}
	e := (m + same + 1) >> 1
	if odd := (m+same)&1 != 0; odd == (k != 0 || 2*c.nn >= c.n) {
		e = -e
	}
	if e < 0 {
		c.nn++
	}
	c.a += (m + 1 - same) >> 1
	if c.n == s.reset {
		c.a >>= 1
		c.n >>= 1
		c.nn >>= 1
	}
	c.n++
	return e, nil
}

// An lsReader reads the bits of entropy data, in which a byte after FF has only
// seven bits. Past the end it returns zeros.
type lsReader struct {
	src  []byte
	pos  int
	acc  uint64 // unread bits, the next one in the highest bit
	n    uint   // how many bits of acc are valid
	void uint   // how many of the valid bits are past the end
}

func (r *lsReader) refill() {
	for r.n <= 56 {
		if r.pos >= len(r.src) {
			r.n += 8
			r.void += 8
			continue
		}
		b, width := uint64(r.src[r.pos]), uint(8)
		if r.pos > 0 && r.src[r.pos-1] == 0xFF {
			width = 7 // the highest bit is 0
		}
		r.acc |= b << (64 - width - r.n)
		r.n += width
		r.pos++
	}
}

// bits returns the next k bits, k at most 32.
func (r *lsReader) bits(k uint) int32 {
	if r.n < 32 {
		r.refill()
	}
	v := r.acc >> 1 >> (63 - k)
	r.acc <<= k
	r.n -= k
	return int32(v)
}

// golomb reads a limited-length Golomb code (T.87 A.5.3).
func (r *lsReader) golomb(k uint, limit, qbpp int32) (int32, error) {
	most := limit - qbpp - 1
	zeros := int32(0)
	for r.bits(1) == 0 {
		if zeros++; zeros > most {
			return 0, errCode
		}
	}
	if zeros < most {
		return zeros<<k | r.bits(k), nil
	}
	return r.bits(uint(qbpp)) + 1, nil
}

// overrun reports whether bits past the end were read.
func (r *lsReader) overrun() bool { return r.void > r.n }

// left returns the number of bits that were not read.
func (r *lsReader) left() int { return 8*(len(r.src)-r.pos) + int(r.n) - int(min(r.void, r.n)) }

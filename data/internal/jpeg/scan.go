package jpeg

// A scan holds the parameters of a scan header and the number of its MCUs.
type scan struct {
	comps  []*component
	ss, se int // spectral selection; ss is the predictor of a lossless scan
	ah, al uint
	nx, ny int // MCUs of the scan; single blocks if it has one component
}

// scan reads a scan header (T.81 B.2.3) and the entropy data after it.
func (d *decoder) scan(s []byte, at int) error {
	if d.comps == nil {
		return d.errorf(at, "scan before the frame header")
	}
	if len(s) < 1 || len(s) != 4+2*int(s[0]) || s[0] < 1 || int(s[0]) > len(d.comps) {
		return d.errorf(at, "bad scan header")
	}
	n := int(s[0])
	sc := scan{ss: int(s[1+2*n]), se: int(s[2+2*n]), ah: uint(s[3+2*n] >> 4), al: uint(s[3+2*n] & 15)}
	for i := range n {
		var c *component
		for j := range d.comps {
			if d.comps[j].id == s[1+2*i] {
				c = &d.comps[j]
			}
		}
		if c == nil {
			return d.errorf(at, "scan of the unknown component %d", s[1+2*i])
		}
		for _, o := range sc.comps {
			if o == c {
				return d.errorf(at, "component %d twice in one scan", c.id)
			}
		}
		c.dc, c.ac = s[2+2*i]>>4, s[2+2*i]&15
		if d.sof != sof55 && (c.dc > 3 || c.ac > 3) {
			return d.errorf(at, "Huffman tables %d and %d", c.dc, c.ac)
		}
		sc.comps = append(sc.comps, c)
	}
	d.scans++
	if d.scans > maxScans {
		return d.errorf(at, "more than %d scans", maxScans)
	}
	if d.grey && d.scans == 1 {
		d.dropChroma()
	}
	switch d.sof {
	case sof3:
		return d.lossless(&sc, at)
	case sof55:
		return d.ls(&sc, at)
	}
	if err := d.checkScan(&sc, at); err != nil {
		return err
	}
	if n == 1 {
		sc.nx, sc.ny = sc.comps[0].blocks[0], sc.comps[0].blocks[1]
	} else {
		sc.nx, sc.ny = d.mcux, d.mcuy
	}
	if d.sof == sof2 {
		return d.progressive(&sc)
	}
	return d.sequential(&sc)
}

// checkScan checks the rules of the DCT processes for a scan.
func (d *decoder) checkScan(sc *scan, at int) error {
	dc, ac := true, true
	if d.sof == sof2 {
		dc, ac = sc.ss == 0, sc.ss > 0
		if sc.ss > sc.se || sc.se > 63 || dc && sc.se != 0 || ac && len(sc.comps) != 1 ||
			sc.al > 13 || sc.ah > 13 || sc.ah != 0 && sc.ah != sc.al+1 {
			return d.errorf(at, "bad progressive scan: coefficients %d to %d, bits %d to %d", sc.ss, sc.se, sc.ah, sc.al)
		}
		dc = dc && sc.ah == 0
	} else if sc.ss != 0 || sc.se != 63 && sc.se != 0 || sc.ah != 0 || sc.al != 0 {
		// Some 12-bit encoders write se, which has no meaning here, as 0.
		return d.errorf(at, "bad sequential scan: coefficients %d to %d", sc.ss, sc.se)
	}
	for _, c := range sc.comps {
		if d.sof == sof2 && !c.seen && (sc.ss != 0 || sc.ah != 0) {
			return d.errorf(at, "the first scan of component %d is not the first of its DC", c.id)
		}
		if dc && !d.huff[0][c.dc].ok || ac && !d.huff[1][c.ac].ok {
			return d.errorf(at, "scan uses a Huffman table that was not defined")
		}
		if !d.hasQuant[c.tq] {
			return d.errorf(at, "component %d uses quantization table %d, which was not defined", c.id, c.tq)
		}
		if d.sof != sof2 && c.seen {
			return d.errorf(at, "second scan of component %d", c.id)
		}
	}
	return nil
}

// entropy calls mcu for each of the n MCUs in turn. After every restart MCUs,
// unless restart is 0, it reads a restart marker. It calls reset at the start
// and after each restart marker, and checks that all entropy data before a
// marker have been read.
func (d *decoder) entropy(n, restart int, reset func(), mcu func(i int) error) error {
	next := uint8(0)
	for first := 0; first < n; {
		at := d.pos
		used, ended := d.r.reset(d.src[d.pos:])
		last := n
		if restart > 0 {
			last = min(n, first+restart)
		}
		if !ended {
			if !d.lim.OpenEnd || last < n || !d.complete() {
				return d.errorf(len(d.src), "the stream ends inside a scan")
			}
			d.img.Open = true
		}
		d.pos += used
		reset()
		for i := first; i < last; i++ {
			if err := mcu(i); err != nil {
				return d.errorf(at+d.r.used()/8, "in MCU %d of %d: %v", i, n, err)
			}
		}
		if d.eobrun > 0 {
			return d.errorf(d.pos, "a run of empty blocks goes past MCU %d", last-1)
		}
		if d.r.leftover() && !(d.img.Open && padding(d.r.rest())) {
			return d.errorf(at+d.r.used()/8, "entropy data go on after MCU %d", last-1)
		}
		first = last
		if first < n {
			if m := d.src[d.pos+1]; m != rst0+next {
				return d.errorf(d.pos, "want restart marker %d, found FF %02X", next, m)
			}
			next = (next + 1) & 7
			d.pos += 2
		}
	}
	return nil
}

// entropyError says what is wrong with a code; the caller adds the position.
type entropyError string

func (e entropyError) Error() string { return string(e) }

const (
	errCode    = entropyError("bits that are not a Huffman code")
	errRun     = entropyError("a run past the last coefficient")
	errBits    = entropyError("a value with too many bits")
	errOverrun = entropyError("entropy data end")
)

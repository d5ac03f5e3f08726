package jpeg

import (
	"bytes"
	"fmt"
	"slices"
)

// Markers (T.81 table B.1).
const (
	sof0  = 0xC0 // baseline
	sof1  = 0xC1 // extended sequential
	sof2  = 0xC2 // progressive
	sof3  = 0xC3 // lossless
	dht   = 0xC4
	jpg   = 0xC8
	dac   = 0xCC
	sof15 = 0xCF
	rst0  = 0xD0
	rst7  = 0xD7
	soi   = 0xD8
	eoi   = 0xD9
	sos   = 0xDA
	dqt   = 0xDB
	dnl   = 0xDC
	dri   = 0xDD
	app0  = 0xE0
	app14 = 0xEE
	sof55 = 0xF7 // JPEG-LS
	lse   = 0xF8
	tem   = 0x01
)

const maxComponents = 3

// zigzag[k] is the row-major index of the k-th coefficient. The last 16 entries
// are for a run that goes past the block, which the caller then reports.
var zigzag = [64 + 16]uint8{
	0, 1, 8, 16, 9, 2, 3, 10,
	17, 24, 32, 25, 18, 11, 4, 5,
	12, 19, 26, 33, 40, 48, 41, 34,
	27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36,
	29, 22, 15, 23, 30, 37, 44, 51,
	58, 59, 52, 45, 38, 31, 39, 46,
	53, 60, 61, 54, 47, 55, 62, 63,
	63, 63, 63, 63, 63, 63, 63, 63,
	63, 63, 63, 63, 63, 63, 63, 63,
}

type component struct {
	id     uint8
	h, v   int // sampling factors, 1 to 4
	tq     uint8
	blocks [2]int // width and height in blocks, without the padding to whole MCUs
	stride int    // samples per row of the plane, padded to whole MCUs
	rows   int    // rows of the plane, padded
	pix8   []uint8
	pix16  []uint16
	coef   [][]int16 // progressive: one slice per row of blocks, made by the first scan
	final  [64]bool  // progressive: coefficients whose last bit was read
	seen   bool      // a scan contained this component
	unused bool      // DecodeGrey: read, but not turned into samples
	pred   int32
	dc, ac uint8 // tables of the current scan

	row, above []int32 // JPEG-LS: the current row and the one above
	runIndex   int
}

type decoder struct {
	src       []byte
	pos       int
	lim       Limits
	sof       uint8
	img       Image
	comps     []component
	hmax      int
	vmax      int
	mcux      int // MCUs per row
	mcuy      int
	quant     [4][64]int32 // row-major
	hasQuant  [4]bool
	huff      [2][4]huffman
	restart   int // MCUs between restart markers; 0 means no markers
	transform int
	jfif      bool
	grey      bool // called by DecodeGrey
	r         bitReader
	eobrun    int32
	scans     int
	preset    lsPreset
}

// Decode decodes the one image of a JPEG stream. Bytes after its end marker
// are ignored.
func Decode(src []byte, lim Limits) (*Image, error) {
	d := &decoder{lim: lim}
	return d.image(src)
}

// image decodes src.
func (d *decoder) image(src []byte) (*Image, error) {
	d.src, d.transform = src, -1
	if d.lim.Pixels == 0 {
		d.lim.Pixels = 1 << 27
	}
	if err := d.decode(); err != nil {
		return nil, err
	}
	d.img.Transform = d.transform
	return &d.img, nil
}

func (d *decoder) errorf(at int, format string, a ...any) error {
	return &FormatError{at, fmt.Sprintf(format, a...)}
}

func (d *decoder) decode() error {
	if len(d.src) < 2 || d.src[0] != 0xFF || d.src[1] != soi {
		return d.errorf(0, "want the start marker FF D8")
	}
	d.pos = 2
	for {
		if d.img.Open {
			return d.finish()
		}
		m, err := d.marker()
		if err != nil {
			return err
		}
		switch m {
		case eoi:
			return d.finish()
		case tem, soi:
			return d.errorf(d.pos-2, "marker FF %02X out of place", m)
		}
		if m >= rst0 && m <= rst7 {
			return d.errorf(d.pos-2, "restart marker outside a scan")
		}
		seg, err := d.segment(m)
		if err != nil {
			return err
		}
		if err := d.handle(m, seg, d.pos-len(seg)); err != nil {
			return err
		}
	}
}

// marker reads the next marker and skips fill bytes.
func (d *decoder) marker() (uint8, error) {
	if d.pos >= len(d.src) {
		return 0, d.errorf(len(d.src), "the stream ends without its end marker FF D9")
	}
	if d.src[d.pos] != 0xFF {
		return 0, d.errorf(d.pos, "want a marker, found %02X", d.src[d.pos])
	}
	for d.pos < len(d.src) && d.src[d.pos] == 0xFF {
		d.pos++
	}
	if d.pos >= len(d.src) {
		return 0, d.errorf(len(d.src), "the stream ends inside a marker")
	}
	m := d.src[d.pos]
	if m == 0 {
		return 0, d.errorf(d.pos, "want a marker, found FF 00")
	}
	d.pos++
	return m, nil
}

// segment returns the parameters of marker m and advances past them.
func (d *decoder) segment(m uint8) ([]byte, error) {
	if d.pos+2 > len(d.src) {
		return nil, d.errorf(d.pos, "the stream ends in the length of marker FF %02X", m)
	}
	n := int(d.src[d.pos])<<8 | int(d.src[d.pos+1])
	if n < 2 || d.pos+n > len(d.src) {
		return nil, d.errorf(d.pos, "marker FF %02X has length %d, %d bytes remain", m, n, len(d.src)-d.pos)
	}
	seg := d.src[d.pos+2 : d.pos+n]
	d.pos += n
	return seg, nil
}

// handle processes one marker with its parameters seg, which begin at offset
// at.
func (d *decoder) handle(m uint8, seg []byte, at int) error {
	switch {
	case m == dqt:
		return d.quantTables(seg, at)
	case m == dht:
		return d.huffmanTables(seg, at)
	case m == dri:
		if len(seg) != 2 {
			return d.errorf(at, "restart interval of %d bytes, want 2", len(seg))
		}
		d.restart = int(seg[0])<<8 | int(seg[1])
	case m == sos:
		return d.scan(seg, at)
	case m == app0:
		d.jfif = d.jfif || len(seg) >= 14 && string(seg[:5]) == "JFIF\x00"
	case m == app14:
		if len(seg) >= 12 && string(seg[:5]) == "Adobe" {
			d.transform = int(seg[11])
		}
	case m == dac:
		return UnsupportedError("arithmetic coding")
	case m == dnl:
		return UnsupportedError("a height given after the scan")
	case m == lse:
		return d.lsExtension(seg, at)
	case m >= sof0 && m <= sof15 && m != jpg || m == sof55:
		return d.frame(m, seg, at)
	case m == jpg || m == 0xDE || m == 0xDF || m >= 0xF0 && m <= 0xFD || m > tem && m < 0xC0:
		return UnsupportedError(fmt.Sprintf("marker FF %02X", m))
	}
	return nil // APPn, COM
}

func (d *decoder) quantTables(s []byte, at int) error {
	for len(s) > 0 {
		prec, id := s[0]>>4, s[0]&15
		size := 64 << prec
		if prec > 1 || id > 3 || len(s) < 1+size {
			return d.errorf(at, "bad quantization table")
		}
		for k := range 64 {
			q := int32(s[1+k])
			if prec == 1 {
				q = int32(s[1+2*k])<<8 | int32(s[2+2*k])
			}
			if q == 0 {
				return d.errorf(at, "quantization table %d holds a zero", id)
			}
			d.quant[id][zigzag[k]] = q
		}
		d.hasQuant[id] = true
		s = s[1+size:]
	}
	return nil
}

func (d *decoder) huffmanTables(s []byte, at int) error {
	for len(s) > 0 {
		if len(s) < 17 {
			return d.errorf(at, "Huffman table cut off")
		}
		class, id := s[0]>>4, s[0]&15
		counts := (*[16]uint8)(s[1:17])
		total := 0
		for _, c := range counts {
			total += int(c)
		}
		if class > 1 || id > 3 || total > 256 || len(s) < 17+total {
			return d.errorf(at, "bad Huffman table")
		}
		if !d.huff[class][id].build(counts, s[17:17+total]) {
			return d.errorf(at, "Huffman table has more codes of a length than that length allows")
		}
		s = s[17+total:]
	}
	return nil
}

// frame reads a frame header (T.81 B.2.2).
func (d *decoder) frame(m uint8, s []byte, at int) error {
	if d.comps != nil {
		return d.errorf(at, "second frame header")
	}
	switch m {
	case sof0, sof1, sof2, sof3, sof55:
	default:
		return UnsupportedError(fmt.Sprintf("process SOF%d", m-sof0))
	}
	if len(s) < 6 || len(s) != 6+3*int(s[5]) {
		return d.errorf(at, "bad frame header")
	}
	p, h, w, n := int(s[0]), int(s[1])<<8|int(s[2]), int(s[3])<<8|int(s[4]), int(s[5])
	if w == 0 || n == 0 {
		return d.errorf(at, "frame of %dx%d and %d components", w, h, n)
	}
	if h == 0 {
		return UnsupportedError("a height given after the scan")
	}
	if n != 1 && n != 3 {
		return UnsupportedError(fmt.Sprintf("%d components", n))
	}
	if (m == sof3 || m == sof55) && (p < 2 || p > 16) || m == sof0 && p != 8 || (m == sof1 || m == sof2) && p != 8 && p != 12 {
		return d.errorf(at, "%d bits per sample are not allowed in process SOF%d", p, m-sof0)
	}
	if d.grey && (p != 8 || m == sof3 || m == sof55) {
		return UnsupportedError(fmt.Sprintf("grey from %d bits of process SOF%d", p, m-sof0))
	}
	if l := d.lim; l.Width != 0 && w != l.Width || l.Height != 0 && h != l.Height ||
		l.Components != 0 && n != l.Components || l.Precision != 0 && p > l.Precision {
		return d.errorf(at, "the frame is %dx%d with %d components of %d bits, want %dx%d with %d of at most %d bits",
			w, h, n, p, l.Width, l.Height, l.Components, l.Precision)
	}
	if w*h > d.lim.Pixels {
		return &LimitError{w, h, d.lim.Pixels}
	}
	d.sof = m
	d.img = Image{Width: w, Height: h, Components: n, Precision: p, Lossless: m == sof3 || m == sof55}
	comps := make([]component, n)
	d.hmax, d.vmax = 1, 1
	for i := range comps {
		c := s[6+3*i:]
		comps[i] = component{id: c[0], h: int(c[1] >> 4), v: int(c[1] & 15), tq: c[2]}
		if comps[i].h < 1 || comps[i].h > 4 || comps[i].v < 1 || comps[i].v > 4 || c[2] > 3 {
			return d.errorf(at+6+3*i, "component %d samples %dx%d, quantization table %d", i, comps[i].h, comps[i].v, c[2])
		}
		for j := range i {
			if comps[j].id == c[0] {
				return d.errorf(at+6+3*i, "component id %d twice", c[0])
			}
		}
		if n == 1 {
			comps[i].h, comps[i].v = 1, 1 // not interleaved: the factors have no effect
		}
		d.hmax, d.vmax = max(d.hmax, comps[i].h), max(d.vmax, comps[i].v)
	}
	for _, c := range comps {
		if d.hmax%c.h != 0 || d.vmax%c.v != 0 {
			return UnsupportedError("a fractional sampling ratio")
		}
	}
	d.comps = comps
	d.layout()
	return d.plausible(at)
}

// layout computes the block geometry of the components.
func (d *decoder) layout() {
	w, h := d.img.Width, d.img.Height
	d.mcux = ceil(w, 8*d.hmax)
	d.mcuy = ceil(h, 8*d.vmax)
	for i := range d.comps {
		c := &d.comps[i]
		c.blocks = [2]int{ceil(ceil(w*c.h, d.hmax), 8), ceil(ceil(h*c.v, d.vmax), 8)}
		c.stride = d.mcux * c.h * 8
		c.rows = d.mcuy * c.v * 8
	}
}

// plausible returns an error if the remaining bytes cannot code a frame of this
// size: a lossless sample takes at least one bit, a sequential block two, and a
// progressive block one in its first scan. So a wrong frame header cannot cause
// a large allocation.
func (d *decoder) plausible(at int) error {
	bits := 0
	switch d.sof {
	case sof3:
		bits = d.img.Width * d.img.Height * d.img.Components
	case sof55: // one bit can code up to 32768 samples, so memory grows row by row
		bits = d.img.Width * d.img.Height * d.img.Components >> 15
	default:
		for _, c := range d.comps {
			bits += c.blocks[0] * c.blocks[1]
		}
		if d.sof != sof2 {
			bits *= 2
		}
	}
	if have := (len(d.src) - d.pos) * 8; bits > have {
		return d.errorf(at, "a frame of %dx%d with %d components needs at least %d bits, %d remain",
			d.img.Width, d.img.Height, d.img.Components, bits, have)
	}
	return nil
}

// complete reports whether the scans so far, including the current one, contain
// every sample.
func (d *decoder) complete() bool {
	for i := range d.comps {
		c := &d.comps[i]
		if !c.seen || d.sof == sof2 && slices.Contains(c.final[:], false) {
			return false
		}
	}
	return true
}

// padding reports whether b may follow the entropy data of a stream without end
// marker: at most two bytes, of padding to an even length or of a broken marker.
func padding(b []byte) bool {
	return len(b) <= 2 && len(bytes.Trim(b, "\x00\xFF")) == 0
}

func ceil(a, b int) int { return (a + b - 1) / b }

// finish makes the image from the planes.
func (d *decoder) finish() error {
	if d.comps == nil {
		return d.errorf(d.pos, "no frame header before the end marker")
	}
	for i := range d.comps {
		if !d.comps[i].seen {
			return d.errorf(d.pos, "no scan for component %d", i)
		}
	}
	if d.sof == sof3 {
		return nil
	}
	if d.sof == sof2 {
		d.reconstruct()
	}
	if d.sof == sof55 {
		d.hmax, d.vmax = 1, 1
		for i := range d.comps {
			d.comps[i].stride = d.img.Width
		}
	}
	if d.img.Precision <= 8 {
		d.img.Pix8 = assemble(d, func(c *component) []uint8 { return c.pix8 })
	} else {
		d.img.Pix16 = assemble(d, func(c *component) []uint16 { return c.pix16 })
	}
	return nil
}

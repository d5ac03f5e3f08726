package dicom

import (
	"fmt"
	"math"
)

// grey sets the pixels of f from the samples of one frame, as frame returns
// them.
func (st *study) grey(f *Film, pix []byte, o *Options) error {
	s := st.shape
	switch {
	case s.samples == 1 && s.photometric == "PALETTE COLOR":
		return st.palette(f, pix)
	case s.samples == 1 && (s.photometric == "MONOCHROME1" || s.photometric == "MONOCHROME2"):
		return st.monochrome(f, pix, o)
	case s.samples == 3:
		switch s.photometric {
		case "RGB", "YBR_RCT", "YBR_ICT": // the JPEG 2000 decoder undoes RCT and ICT
			s.colour(f, pix, luma)
			st.contrast(f, pix)
			return nil
		case "YBR_FULL", "YBR_FULL_422":
			s.colour(f, pix, func(y, _, _ uint32) uint32 { return y })
			st.contrast(f, pix)
			return nil
		}
	}
	return &UnsupportedError{st.syntax, fmt.Sprintf("photometric interpretation %.64q with %d samples per pixel", s.photometric, s.samples)}
}

// luma is the Y of ITU-R BT.601, rounded as in image/color: weights 0.299,
// 0.587 and 0.114. It is also the Y of DICOM's YBR_FULL.
func luma(r, g, b uint32) uint32 {
	return uint32((19595*uint64(r) + 38470*uint64(g) + 7471*uint64(b) + 1<<15) >> 16)
}

// at returns sample i of pix without its unused bits.
func (s *shape) at(pix []byte, i int) uint32 {
	var v uint32
	switch s.allocated {
	case 1, 8:
		v = uint32(pix[i])
	case 16:
		v = uint32(pix[2*i]) | uint32(pix[2*i+1])<<8
	default:
		v = uint32(pix[4*i]) | uint32(pix[4*i+1])<<8 | uint32(pix[4*i+2])<<16 | uint32(pix[4*i+3])<<24
	}
	return v >> (s.high + 1 - s.stored) & (1<<s.stored - 1)
}

// colour sets f to the grey values of pixels of three samples, as mix computes
// them.
func (s *shape) colour(f *Film, pix []byte, mix func(a, b, c uint32) uint32) {
	f.Scale, f.Offset = 0, 0
	drop := max(0, s.stored-16)
	out := f.make(s.stored - drop)
	for i := range s.rows * s.columns {
		out(i, uint16(mix(s.at(pix, 3*i)>>drop, s.at(pix, 3*i+1)>>drop, s.at(pix, 3*i+2)>>drop)))
	}
}

// make allocates the pixels of f with that many bits and returns a function
// that sets one pixel.
func (f *Film) make(bits int) func(i int, v uint16) {
	f.Bits, f.Black, f.White = bits, 0, 1<<bits-1
	if bits <= 8 {
		f.Pix8 = make([]uint8, f.Rows*f.Columns)
		return func(i int, v uint16) { f.Pix8[i] = uint8(v) }
	}
	f.Pix16 = make([]uint16, f.Rows*f.Columns)
	return func(i int, v uint16) { f.Pix16[i] = v }
}

// palette looks up pixels in the palette and converts the colours to grey.
func (st *study) palette(f *Film, pix []byte) error {
	if st.head.raw[0x00281221] != nil {
		return &UnsupportedError{st.syntax, "a segmented palette"}
	}
	s := st.shape
	if s.stored > 16 || s.signed {
		return &UnsupportedError{st.syntax, "a palette for signed pixels or more than 16 bits"}
	}
	var luts [3]*lut
	for i := range luts {
		t := table{st.head.raw[0x00281101+uint32(i)], st.head.raw[0x00281201+uint32(i)]}
		l, err := newLUT("palette", t, false)
		if err != nil {
			return err
		}
		luts[i] = l
	}
	if luts[0].bits != luts[1].bits || luts[0].bits != luts[2].bits {
		return broken(-1, "palettes of %d, %d and %d bits", luts[0].bits, luts[1].bits, luts[2].bits)
	}
	f.Scale, f.Offset = 0, 0
	out := f.make(luts[0].bits)
	for i := range s.rows * s.columns {
		v := int(s.at(pix, i))
		out(i, uint16(luma(uint32(luts[0].at(v)), uint32(luts[1].at(v)), uint32(luts[2].at(v)))))
	}
	return nil
}

// A lut is a look-up table (DICOM PS3.3, C.11.1.1).
type lut struct {
	first int // the value of the first entry
	bits  int
	v     []uint16
}

// newLUT reads a table; signed says whether the first value is signed.
func newLUT(name string, t table, signed bool) (*lut, error) {
	d := t.descriptor
	if len(d) != 6 {
		return nil, broken(-1, "%s descriptor has %d bytes, want 6", name, len(d))
	}
	word := func(i int) int { return int(d[2*i]) | int(d[2*i+1])<<8 }
	n, l := word(0), &lut{first: word(1), bits: word(2)}
	if signed {
		l.first = int(int16(l.first))
	}
	if n == 0 {
		n = 1 << 16
	}
	if l.bits < 8 || l.bits > 16 {
		return nil, broken(-1, "%s has entries of %d bits, want 8 to 16", name, l.bits)
	}
	switch {
	case len(t.data) >= 2*n:
		l.v = make([]uint16, n)
		for i := range l.v {
			l.v[i] = (uint16(t.data[2*i]) | uint16(t.data[2*i+1])<<8) & (1<<l.bits - 1)
		}
	case len(t.data) >= n && l.bits == 8:
		l.v = make([]uint16, n)
		for i := range l.v {
			l.v[i] = uint16(t.data[i])
		}
	default:
		return nil, broken(-1, "%s has %d bytes, want %d entries", name, len(t.data), n)
	}
	return l, nil
}

// at returns the entry for v, or the first or last entry if v is outside the
// table.
func (l *lut) at(v int) uint16 { return l.v[min(max(v-l.first, 0), len(l.v)-1)] }

// monochrome fills f with grey pixels.
func (st *study) monochrome(f *Film, pix []byte, o *Options) error {
	s := st.shape
	m, err := st.modality(o)
	if err != nil {
		return err
	}
	v, err := st.voi(o, m)
	if err != nil {
		return err
	}
	invert := s.photometric == "MONOCHROME1"
	switch {
	case v != nil:
		f.Scale, f.Offset = 0, 0
		bits := 16
		if s.stored <= 8 {
			bits = 8
		}
		white := float64(uint32(1)<<bits - 1)
		s.fill(f, pix, bits, func(stored float64) uint16 {
			y := v(m.value(stored))
			if invert {
				y = 1 - y
			}
			return uint16(y*white + 0.5)
		})
	case m.lut != nil:
		white := uint16(1<<m.lut.bits - 1)
		s.fill(f, pix, m.lut.bits, func(stored float64) uint16 {
			if invert {
				return white - uint16(m.value(stored))
			}
			return uint16(m.value(stored))
		})
		if f.Scale, f.Offset = 1, 0; invert {
			f.Scale, f.Offset = -1, float64(white)
		}
		st.contrast(f, pix)
	default:
		s.linear(f, pix, invert != (m.slope < 0))
		f.Scale, f.Offset = m.slope*f.Scale, m.intercept+m.slope*f.Offset
		st.contrast(f, pix)
	}
	return nil
}

// contrast sets Black and White of a film of more than 8 bits to its lowest and
// highest pixel, without padding. With fewer bits this would not give more levels.
func (st *study) contrast(f *Film, pix []byte) {
	if f.Pix16 == nil {
		return
	}
	padded := st.padding()
	there := make([]bool, 1<<16)
	for i, v := range f.Pix16 {
		if padded == nil || !padded(pix, i) {
			there[v] = true
		}
	}
	var values []int
	for v, is := range there {
		if is {
			values = append(values, v)
		}
	}
	if values = together(values); len(values) > 1 {
		f.Black, f.White = uint16(values[0]), uint16(values[len(values)-1])
	}
}

// together returns ascending values without a few at either end that a gap wider than
// the range of all others separates from them: a border or a marker that the file says
// nothing about, beside which the picture would be flat.
func together(values []int) []int {
	const few = 32
	for len(values) > few {
		at, last := 1, len(values)-1 // at is the first value after the widest gap
		for i := range last {
			if values[i+1]-values[i] > values[at]-values[at-1] {
				at = i + 1
			}
		}
		low, high := values[:at], values[at:]
		switch gap := high[0] - low[at-1]; {
		case gap <= values[last]-values[0]-gap:
			return values
		case len(low) < few && len(high) >= few:
			values = high
		case len(high) < few && len(low) >= few:
			values = low
		default:
			return values
		}
	}
	return values
}

// padding returns the function that says which pixels are padding around the
// image (DICOM PS3.3, C.7.5.1.1.2), or nil if the file has no padding value.
func (st *study) padding() func(pix []byte, i int) bool {
	s := st.shape
	value := func(t uint32) (v float64, ok bool) {
		b := st.head.raw[t]
		if len(b) != 2 {
			return 0, false
		}
		if word := uint16(b[0]) | uint16(b[1])<<8; s.signed {
			return float64(int16(word)), true
		} else {
			return float64(word), true
		}
	}
	from, ok := value(0x00280120)
	if !ok || s.samples != 1 {
		return nil
	}
	to, ok := value(0x00280121)
	if !ok {
		to = from
	}
	from, to = min(from, to), max(from, to)
	return func(pix []byte, i int) bool {
		v := s.value(pix, i)
		return from <= v && v <= to
	}
}

// linear stores the pixels, changed only in their offset, their polarity and,
// above 16 bits, their scale.
func (s *shape) linear(f *Film, pix []byte, invert bool) {
	if s.stored == 8 && s.allocated == 8 && !s.signed {
		f.Pix8 = pix
		if invert {
			for i := range pix {
				pix[i] = 255 - pix[i]
			}
			f.Scale, f.Offset = -1, 255
		}
		return
	}
	lo, hi, bits := float64(0), float64(uint64(1)<<s.stored-1), s.stored
	if s.signed {
		lo -= float64(uint64(1) << (s.stored - 1))
		hi += lo
	}
	step := 1.0
	if s.stored > 16 { // scale the values that occur to 16 bits
		lo, hi = s.extremes(pix)
		step = math.Max(1, (hi-lo)/65535)
		hi, bits = lo+65535*step, 16
	}
	f.Scale, f.Offset = step, lo
	if invert {
		f.Scale, f.Offset = -step, hi
	}
	s.fill(f, pix, bits, func(stored float64) uint16 {
		return uint16(math.Round((stored - f.Offset) / f.Scale))
	})
}

// value returns sample i as a signed number.
func (s *shape) value(pix []byte, i int) float64 {
	v := int64(s.at(pix, i))
	if s.signed && v >= 1<<(s.stored-1) {
		v -= 1 << s.stored
	}
	return float64(v)
}

// extremes returns the lowest and the highest value.
func (s *shape) extremes(pix []byte) (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for i := range s.rows * s.columns {
		v := s.value(pix, i)
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}

// fill gives f pixels of that many bits, each the curve of its stored value. If
// a table of all values is smaller than the image, it uses one.
func (s *shape) fill(f *Film, pix []byte, bits int, curve func(stored float64) uint16) {
	set := f.make(bits)
	n := s.rows * s.columns
	if s.stored > 16 || n < 1<<s.stored {
		for i := range n {
			set(i, curve(s.value(pix, i)))
		}
		return
	}
	all := make([]uint16, 1<<s.stored)
	for u := range all {
		v := float64(u)
		if s.signed && u >= 1<<(s.stored-1) {
			v -= float64(len(all))
		}
		all[u] = curve(v)
	}
	for i := range n {
		set(i, all[s.at(pix, i)])
	}
}

// A modality converts stored values to the units of the modality.
type modality struct {
	slope, intercept float64
	lut              *lut
}

func (m *modality) value(stored float64) float64 {
	if m.lut != nil {
		return float64(m.lut.at(int(stored)))
	}
	return m.slope*stored + m.intercept
}

// modality returns the transform for the options, the identity if there is
// none.
func (st *study) modality(o *Options) (*modality, error) {
	m := &modality{slope: 1}
	if !o.ApplyModality && !o.ApplyVOI {
		return m, nil
	}
	if t := st.head.tables[0x00283000]; len(t) > 0 {
		l, err := newLUT("modality LUT", t[0], st.shape.signed)
		m.lut = l
		return m, err
	}
	slope, err := st.head.decimals(0x00281053)
	if err != nil {
		return nil, err
	}
	intercept, err := st.head.decimals(0x00281052)
	if err != nil {
		return nil, err
	}
	if len(slope) > 0 {
		m.slope = slope[0]
	}
	if len(intercept) > 0 {
		m.intercept = intercept[0]
	}
	if m.slope == 0 {
		return nil, broken(-1, "the rescale slope (0028,1053) is 0")
	}
	return m, nil
}

// voi returns the function in the file that maps modality values to display
// values in [0, 1] (DICOM PS3.3, C.11.2), or nil if the options do not ask for
// it or the file has none.
func (st *study) voi(o *Options, m *modality) (func(x float64) float64, error) {
	if !o.ApplyVOI {
		return nil, nil
	}
	if t := st.head.tables[0x00283010]; len(t) > 0 {
		signed := m.lut == nil && (st.shape.signed || m.intercept < 0)
		l, err := newLUT("VOI LUT", t[0], signed)
		if err != nil {
			return nil, err
		}
		white := float64(uint32(1)<<l.bits - 1)
		return func(x float64) float64 {
			return float64(l.at(int(math.Round(min(max(x, -1<<20), 1<<20))))) / white
		}, nil
	}
	centre, err := st.head.decimals(0x00281050)
	if err != nil {
		return nil, err
	}
	width, err := st.head.decimals(0x00281051)
	if err != nil || len(centre) == 0 || len(width) == 0 {
		return nil, err
	}
	return window(st.head.text(0x00281056), centre[0], width[0])
}

// window returns the VOI function with that name, for center c and width w
// (C.11.2.1.2 and C.11.2.1.3).
func window(name string, c, w float64) (func(x float64) float64, error) {
	switch name {
	case "", "LINEAR":
		if w < 1 {
			return nil, broken(-1, "window width (0028,1051) is %g, want 1 or more", w)
		}
		return func(x float64) float64 {
			switch {
			case x <= c-0.5-(w-1)/2:
				return 0
			case x > c-0.5+(w-1)/2:
				return 1
			}
			return (x-(c-0.5))/(w-1) + 0.5
		}, nil
	case "LINEAR_EXACT", "SIGMOID":
		if w <= 0 {
			return nil, broken(-1, "window width (0028,1051) is %g, want more than 0", w)
		}
		if name == "SIGMOID" {
			return func(x float64) float64 { return 1 / (1 + math.Exp(-4*(x-c)/w)) }, nil
		}
		return func(x float64) float64 { return min(max((x-c)/w+0.5, 0), 1) }, nil
	}
	return nil, broken(-1, "VOI LUT function (0028,1056) is %.64q, want LINEAR, LINEAR_EXACT or SIGMOID", name)
}

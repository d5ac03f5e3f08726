// Package part10 encodes DICOM data sets in explicit little endian, and files
// with such data sets (DICOM PS3.5, section 7.1, and PS3.10, section 7.1).
//
// Package dicom reads with github.com/suyashkumar/dicom, but the writer of that
// module has no pixels of one bit, which a segmentation needs.
package part10

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// ExplicitLittleEndian is the transfer syntax of the data sets that are encoded.
const ExplicitLittleEndian = "1.2.840.10008.1.2.1"

// implementation identifies this writer (0002,0012). It is below 2.25, the root
// of UIDs made from UUIDs, which need no registration.
const implementation = "2.25.194823961290274160312706517231943025417"

// Element appends one element in explicit little endian. The value must have an
// even length.
func Element(b []byte, tag uint32, vr string, val []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(tag>>16))
	b = binary.LittleEndian.AppendUint16(b, uint16(tag))
	b = append(b, vr...)
	switch vr {
	case "OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT":
		b = append(b, 0, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(val)))
	default:
		b = binary.LittleEndian.AppendUint16(b, uint16(len(val)))
	}
	return append(b, val...)
}

// Pad pads s with c to an even number of bytes.
func Pad(s string, c byte) string {
	if len(s)%2 == 1 {
		s += string(rune(c))
	}
	return s
}

// Item appends the head of an item of n bytes, or, with another tag, the head of a
// delimiter.
func Item(b []byte, tag uint32, n int) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(tag>>16))
	b = binary.LittleEndian.AppendUint16(b, uint16(tag))
	return binary.LittleEndian.AppendUint32(b, uint32(n))
}

// A Set is a data set that is being made. Its elements may be added in any
// order.
type Set struct{ elems []element }

type element struct {
	tag  uint32
	code []byte // the whole element
}

// Raw adds an element whose value is already encoded.
func (s *Set) Raw(tag uint32, vr string, val []byte) { s.Coded(tag, Element(nil, tag, vr, val)) }

// Coded adds an element that is completely encoded.
func (s *Set) Coded(tag uint32, code []byte) { s.elems = append(s.elems, element{tag, code}) }

// Text adds a text or byte element, empty or not.
func (s *Set) Text(tag uint32, vr, val string) {
	fill := byte(' ')
	if vr == "UI" || vr == "OB" {
		fill = 0
	}
	s.Raw(tag, vr, []byte(Pad(val, fill)))
}

// Known adds a text element if it is not empty.
func (s *Set) Known(tag uint32, vr, val string) {
	if val != "" {
		s.Text(tag, vr, val)
	}
}

// Short adds numbers of 16 bits.
func (s *Set) Short(tag uint32, v ...int) {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint16(b, uint16(x))
	}
	s.Raw(tag, "US", b)
}

// Long adds numbers of 32 bits.
func (s *Set) Long(tag uint32, v ...int) {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	s.Raw(tag, "UL", b)
}

// Tag adds an element that names another one.
func (s *Set) Tag(tag, of uint32) {
	b := binary.LittleEndian.AppendUint16(nil, uint16(of>>16))
	s.Raw(tag, "AT", binary.LittleEndian.AppendUint16(b, uint16(of)))
}

// Items adds a sequence.
func (s *Set) Items(tag uint32, items ...*Set) {
	var seq []byte
	for _, it := range items {
		body := it.Encode()
		seq = append(Item(seq, 0xFFFEE000, len(body)), body...)
	}
	s.Raw(tag, "SQ", seq)
}

// Encode returns the elements in the order of their tags.
func (s *Set) Encode() []byte {
	all := slices.Clone(s.elems)
	slices.SortStableFunc(all, func(a, b element) int { return cmp.Compare(a.tag, b.tag) })
	var b []byte
	for _, e := range all {
		b = append(b, e.code...)
	}
	return b
}

// File returns a DICOM file with the data set and its meta information, for an
// instance of that class.
func (s *Set) File(class, instance, syntax string) []byte {
	var meta Set
	meta.Text(0x00020001, "OB", "\x00\x01")
	meta.Text(0x00020002, "UI", class)
	meta.Text(0x00020003, "UI", instance)
	meta.Text(0x00020010, "UI", syntax)
	meta.Text(0x00020012, "UI", implementation)
	coded := meta.Encode()
	b := append(make([]byte, 128), "DICM"...)
	b = Element(b, 0x00020000, "UL", binary.LittleEndian.AppendUint32(nil, uint32(len(coded))))
	return append(append(b, coded...), s.Encode()...)
}

// Decimals formats the numbers of a decimal string, with at most 16 characters
// each.
func Decimals(v []float64) string {
	var s []string
	for _, x := range v {
		for prec := 15; ; prec-- {
			if t := strconv.FormatFloat(x, 'g', prec, 64); len(t) <= 16 {
				s = append(s, t)
				break
			}
		}
	}
	return strings.Join(s, `\`)
}

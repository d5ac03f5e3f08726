package dicom

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	upstream "github.com/suyashkumar/dicom"
	"github.com/suyashkumar/dicom/pkg/tag"

	"github.com/hcunet/hcunet/data/dicom/internal/part10"
)

// A header holds the values of the elements that the guard kept.
type header struct {
	str    map[uint32][]string
	num    map[uint32]int
	raw    map[uint32][]byte
	tables map[uint32][]table // by the tag of their sequence
}

// A table is an item of a LUT sequence.
type table struct{ descriptor, data []byte }

// parse reads the elements that the guard kept with
// github.com/suyashkumar/dicom. They are rewritten as a small file in explicit
// little endian.
func (l *layout) parse() (*header, error) {
	var b bytes.Buffer
	b.Write(make([]byte, 128))
	b.WriteString("DICM")
	meta := part10.Element(nil, 0x00020010, "UI", []byte(part10.Pad(string(ExplicitLittleEndian), 0)))
	b.Write(part10.Element(nil, 0x00020000, "UL", binary.LittleEndian.AppendUint32(nil, uint32(len(meta)))))
	b.Write(meta)
	for _, e := range l.kept {
		b.Write(e.encode(nil))
	}
	ds, err := upstream.Parse(&b, int64(b.Len()), nil, upstream.AllowUnknownSpecificCharacterSet())
	if err != nil {
		return nil, &FormatError{Offset: -1, Msg: "the elements do not parse: " + err.Error(), Err: err}
	}
	h := &header{map[uint32][]string{}, map[uint32]int{}, map[uint32][]byte{}, map[uint32][]table{}}
	for _, e := range ds.Elements {
		key := number(e.Tag)
		switch v := e.Value.GetValue().(type) {
		case []string:
			for i := range v {
				v[i] = strings.Trim(v[i], " \x00")
			}
			h.str[key] = v
		case []int:
			if len(v) > 0 {
				h.num[key] = v[0]
			}
		case []byte:
			h.raw[key] = v
		case []*upstream.SequenceItemValue:
			h.tables[key] = tables(v)
		}
	}
	return h, nil
}

func number(t tag.Tag) uint32 { return uint32(t.Group)<<16 | uint32(t.Element) }

func tables(items []*upstream.SequenceItemValue) []table {
	var out []table
	for _, it := range items {
		elems, _ := it.GetValue().([]*upstream.Element)
		var t table
		for _, e := range elems {
			v, _ := e.Value.GetValue().([]byte)
			switch number(e.Tag) {
			case 0x00283002:
				t.descriptor = v
			case 0x00283006:
				t.data = v
			}
		}
		out = append(out, t)
	}
	return out
}

// encode appends e in explicit little endian.
func (e *element) encode(b []byte) []byte {
	if e.vr != "SQ" {
		return part10.Element(b, e.tag, e.vr, e.val)
	}
	var seq []byte
	if e.hasItem {
		var body []byte
		for i := range e.item {
			body = e.item[i].encode(body)
		}
		seq = append(part10.Item(nil, tagItem, len(body)), body...)
	}
	return part10.Element(b, e.tag, "SQ", seq)
}

// text returns the first value of a string element, or "".
func (h *header) text(t uint32) string {
	if v := h.str[t]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// decimals returns the values of a decimal string element. Empty values end the
// list.
func (h *header) decimals(t uint32) ([]float64, error) {
	var out []float64
	for _, s := range h.str[t] {
		if s == "" {
			break
		}
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, broken(-1, "element (%04X,%04X) is %.64q, want a number", t>>16, t&0xFFFF, s)
		}
		out = append(out, v)
	}
	return out, nil
}

// positives returns the n positive numbers of a decimal string element, or nil
// with a warning if they are not valid. A decimal comma is read as a point, with
// a warning. It is for elements that do not affect the pixels.
func (h *header) positives(l *layout, name string, t uint32, n int) []float64 {
	all := h.str[t]
	if strings.Join(all, "") == "" {
		return nil
	}
	want := "a positive number"
	if n > 1 {
		want = fmt.Sprintf("%d positive numbers", n)
	}
	out := make([]float64, n)
	comma := false
	for i := range out {
		s := ""
		if i < len(all) {
			s = all[i]
		}
		if strings.Count(s, ",") == 1 && !strings.Contains(s, ".") {
			s, comma = strings.Replace(s, ",", ".", 1), true
		}
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !(v > 0) || math.IsInf(v, 0) {
			l.warn("%s (%04X,%04X) is %.64q, want %s; it is left out", name, t>>16, t&0xFFFF, strings.Join(all, `\`), want)
			return nil
		}
		out[i] = v
	}
	if comma {
		l.warn("%s (%04X,%04X) is %.64q; its commas are read as decimal points", name, t>>16, t&0xFFFF, strings.Join(all, `\`))
	}
	return out
}

// vector returns the n numbers of a decimal string element, or nil with a
// warning if they are not valid. It is for elements that do not affect the
// pixels.
func (h *header) vector(l *layout, name string, t uint32, n int) []float64 {
	v, err := h.decimals(t)
	if len(v) == n && err == nil {
		return v
	}
	if len(h.str[t]) > 0 && strings.Join(h.str[t], "") != "" {
		l.warn("%s (%04X,%04X) is %.64q, want %d numbers; it is left out", name, t>>16, t&0xFFFF, strings.Join(h.str[t], `\`), n)
	}
	return nil
}

// uid returns the value of a UID element, with a warning if it is not a UID.
func (h *header) uid(l *layout, name string, t uint32) string {
	s := h.text(t)
	if s != "" && !IsUID(s) {
		l.warn("%s (%04X,%04X) is %.80q, which is not a UID", name, t>>16, t&0xFFFF, s)
	}
	return s
}

// IsUID reports whether s is a unique identifier: numbers without leading zeros
// with dots between them, at most 64 characters (DICOM PS3.5, 9.1).
func IsUID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, part := range strings.Split(s, ".") {
		if part == "" || strings.Trim(part, "0123456789") != "" || len(part) > 1 && part[0] == '0' {
			return false
		}
	}
	return true
}

// A shape holds what the header says about the pixels.
type shape struct {
	rows, columns int
	samples       int // per pixel
	allocated     int // bits: 1, 8, 16 or 32
	stored        int // bits
	high          int // highest stored bit
	signed        bool
	planar        bool // all of R before all of G
	photometric   string
	frames        int
}

// shape reads and checks the image pixel elements.
func (h *header) shape(l *layout) (*shape, error) {
	for _, t := range []uint32{0x00280010, 0x00280011, 0x00280100} {
		if h.num[t] == 0 {
			return nil, broken(-1, "pixel data without %s (%04X,%04X)", map[uint32]string{
				0x00280010: "rows", 0x00280011: "columns", 0x00280100: "bits allocated"}[t], t>>16, t&0xFFFF)
		}
	}
	s := &shape{
		rows: h.num[0x00280010], columns: h.num[0x00280011],
		samples: 1, allocated: h.num[0x00280100], stored: h.num[0x00280100],
		signed: h.num[0x00280103] == 1, planar: h.num[0x00280006] == 1,
		photometric: h.text(0x00280004), frames: 1,
	}
	if n, ok := h.num[0x00280002]; ok {
		s.samples = n
	}
	if n, ok := h.num[0x00280101]; ok {
		s.stored = n
	}
	s.high = s.stored - 1
	if n, ok := h.num[0x00280102]; ok {
		s.high = n
	}
	if f := h.text(0x00280008); f != "" {
		n, err := strconv.ParseInt(strings.TrimSpace(f), 10, 32) // the range of IS in PS3.5
		if err != nil || n < 0 {
			return nil, broken(-1, "number of frames (0028,0008) is %.64q", f)
		}
		if n == 0 {
			l.warn("number of frames (0028,0008) is 0; it is read as 1")
		}
		s.frames = max(1, int(n))
	}
	if s.photometric == "" {
		s.photometric = "MONOCHROME2"
		if s.samples == 3 {
			s.photometric = "RGB"
		}
	}
	switch s.allocated {
	case 1, 8, 16, 32:
	default:
		return nil, &UnsupportedError{l.syntax, fmt.Sprintf("%d bits allocated", s.allocated)}
	}
	if s.stored < 1 || s.stored > s.allocated || s.high < s.stored-1 || s.high >= s.allocated {
		return nil, broken(-1, "%d bits stored up to bit %d of %d allocated", s.stored, s.high, s.allocated)
	}
	if s.samples != 1 && s.samples != 3 {
		return nil, &UnsupportedError{l.syntax, fmt.Sprintf("%d samples per pixel", s.samples)}
	}
	if s.allocated == 1 && s.samples != 1 {
		return nil, &UnsupportedError{l.syntax, "colour of one bit"}
	}
	if s.photometric == "YBR_FULL_422" && s.samples != 3 {
		return nil, broken(-1, "YBR_FULL_422 with %d samples per pixel, want 3", s.samples)
	}
	return s, nil
}

// bytes returns the size of one decoded frame.
func (s *shape) bytes() int {
	return s.rows * s.columns * s.samples * max(s.allocated, 8) / 8
}

package dicom

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// The guard walks a file's elements before any parser sees them. It checks
// every length against the bytes that are there, remembers where the few
// elements a film needs lie, and where the pixels are. Only those elements,
// rewritten in explicit little endian with lengths the guard has verified, go
// on to the parser (header.go); pixels never do.

// A span is a part of the stream, in bytes.
type span struct{ off, n int }

// An element is one that the guard keeps.
type element struct {
	tag   uint32 // group<<16 | element
	vr    string // as the wanted table says, not as the file does
	val   []byte // little endian; empty for a sequence
	items [][]element
}

// A layout is what the guard found in a file.
type layout struct {
	syntax Syntax
	kept   []element
	stream []byte // where spans point: the file, or its inflated rest

	hasPixels bool
	native    span   // uncompressed pixels
	bigOW     bool   // native pixels are big-endian words
	offsets   span   // the basic offset table
	fragments []span // encapsulated pixels
}

const (
	tagPixels      = 0x7FE00010
	tagFloatPixels = 0x7FE00008
	tagDoublePixel = 0x7FE00009
	tagItem        = 0xFFFEE000
	tagItemEnd     = 0xFFFEE00D
	tagSeqEnd      = 0xFFFEE0DD
	tagSyntax      = 0x00020010

	undefined = 0xFFFFFFFF

	// maxDepth bounds the nesting of sequences; real files stay below ten.
	maxDepth = 32
	// maxValue bounds a value that is kept. The longest, a palette or look-up
	// table of 65536 entries, has 128 KiB.
	maxValue = 1 << 17
)

// wanted gives the VR of each element a film needs. Tables are kept as OB, in
// little-endian words, whatever the file calls them.
var wanted = map[uint32]string{
	0x00020010: "UI", // transfer syntax
	0x00080005: "CS", // character set
	0x00080016: "UI", // SOP class
	0x00080018: "UI", // SOP instance
	0x00080060: "CS", // modality
	0x00080064: "CS", // conversion type
	0x00100020: "LO", // patient id
	0x00100040: "CS", // sex
	0x00101010: "AS", // age
	0x00180015: "CS", // body part
	0x00181164: "DS", // imager pixel spacing
	0x00185101: "CS", // view position
	0x0020000D: "UI", // study
	0x0020000E: "UI", // series
	0x00280002: "US", // samples per pixel
	0x00280004: "CS", // photometric interpretation
	0x00280006: "US", // planar configuration
	0x00280008: "IS", // number of frames
	0x00280010: "US", // rows
	0x00280011: "US", // columns
	0x00280030: "DS", // pixel spacing
	0x00280100: "US", // bits allocated
	0x00280101: "US", // bits stored
	0x00280102: "US", // high bit
	0x00280103: "US", // pixel representation
	0x00281050: "DS", // window center
	0x00281051: "DS", // window width
	0x00281052: "DS", // rescale intercept
	0x00281053: "DS", // rescale slope
	0x00281056: "CS", // VOI LUT function
	0x00281101: "OB", // palette descriptors
	0x00281102: "OB",
	0x00281103: "OB",
	0x00281201: "OB", // palette data
	0x00281202: "OB",
	0x00281203: "OB",
	0x00281221: "OB", // segmented palette data
	0x00283000: "SQ", // modality LUT
	0x00283002: "OB", // LUT descriptor
	0x00283006: "OB", // LUT data
	0x00283010: "SQ", // VOI LUT
}

// A guard reads elements of one encoding.
type guard struct {
	b        []byte
	pos      int
	implicit bool
	big      bool
}

// A head is an element's tag, VR and length.
type head struct {
	at  int // where the element begins
	tag uint32
	vr  string // empty in implicit encoding and for items
	n   uint32
}

// survey checks file, a whole DICOM file, and says where everything is.
// It inflates at most maxBytes.
func survey(file []byte, maxBytes int64) (*layout, error) {
	if len(file) < 132 {
		return nil, broken(len(file), "the file has %d bytes, a DICOM file begins with a preamble of 128 bytes and DICM", len(file))
	}
	if string(file[128:132]) != "DICM" {
		return nil, broken(128, "want DICM after the preamble, found %q: not a DICOM file", file[128:132])
	}
	g := &guard{b: file, pos: 132}
	l := &layout{stream: file}
	if err := g.meta(l); err != nil {
		return nil, err
	}
	switch l.syntax {
	case ImplicitLittleEndian:
		g.implicit = true
	case ExplicitBigEndian:
		g.big = true
	case Deflated:
		rest, err := inflate(file[g.pos:], maxBytes)
		if err != nil {
			return nil, err
		}
		l.stream = rest
		g = &guard{b: rest}
	case "1.2.840.113619.5.2":
		return nil, &UnsupportedError{Syntax: l.syntax}
	}
	g.correct()
	return l, g.dataset(l)
}

// correct sees to data sets that are implicit where the transfer syntax says
// explicit, or the reverse; there are writers that forget to say so. The first
// element decides.
func (g *guard) correct() {
	if len(g.b)-g.pos < 8 || g.big {
		return
	}
	vr := string(g.b[g.pos+4 : g.pos+6])
	n := binary.LittleEndian.Uint32(g.b[g.pos+4:])
	known := strings.Contains(" AE AS AT CS DA DS DT FD FL IS LO LT OB OW PN SH SL SQ SS ST TM UI UL UN US UT ", " "+vr+" ")
	switch {
	case g.implicit && known && int64(n) > int64(len(g.b)-g.pos-8):
		g.implicit = false
	case !g.implicit && !known && int64(n) <= int64(len(g.b)-g.pos-8):
		g.implicit = true
	}
}

// inflate returns the inflated stream, or as much of it as came before an
// error: whether anything is missing, the elements will tell. It stops at
// maxBytes, and at 32 MiB and 200 bytes for each of b: deflate can put a thousand
// zeros in a byte, and real films do not.
func inflate(b []byte, maxBytes int64) ([]byte, error) {
	maxBytes = min(maxBytes, 32<<20+200*int64(len(b)))
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxBytes+1))
	if n > maxBytes {
		return nil, fmt.Errorf("dicom: the deflated file inflates to more than %d bytes: %w", maxBytes, ErrLimit)
	}
	if out.Len() == 0 && err != nil {
		return nil, &FormatError{Offset: 0, Msg: "the deflated stream is broken: " + err.Error(), Err: err}
	}
	return out.Bytes(), nil
}

// meta reads the file meta information, group 2.
func (g *guard) meta(l *layout) error {
	for g.pos+2 <= len(g.b) && binary.LittleEndian.Uint16(g.b[g.pos:]) == 2 {
		h, err := g.head()
		if err != nil {
			return err
		}
		v, err := g.value(h)
		if err != nil {
			return err
		}
		if h.tag == tagSyntax {
			l.syntax = Syntax(bytes.TrimRight(v, " \x00"))
		}
	}
	if l.syntax == "" {
		return broken(g.pos, "the file meta information holds no transfer syntax (0002,0010)")
	}
	return nil
}

// dataset reads elements up to and with the pixels. What follows the pixels is
// not looked at.
func (g *guard) dataset(l *layout) error {
	for g.pos < len(g.b) {
		h, err := g.head()
		if err != nil {
			return err
		}
		switch h.tag {
		case tagPixels:
			l.hasPixels = true
			return g.pixels(h, l)
		case tagFloatPixels, tagDoublePixel:
			return &UnsupportedError{l.syntax, "floating-point pixel data"}
		case tagItem, tagItemEnd, tagSeqEnd:
			return broken(h.at, "sequence delimiter (%04X,%04X) outside a sequence", h.tag>>16, h.tag&0xFFFF)
		}
		if wanted[h.tag] == "" {
			if err := g.skip(h, 0); err != nil {
				return err
			}
			continue
		}
		e, err := g.keep(h, 0)
		if err != nil {
			return err
		}
		l.kept = append(l.kept, e)
	}
	return nil
}

func (g *guard) order() binary.ByteOrder {
	if g.big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// head reads the next element's tag, VR and length.
func (g *guard) head() (head, error) {
	h := head{at: g.pos}
	b := g.b[g.pos:]
	if len(b) < 8 {
		return h, broken(g.pos, "the file ends in the head of an element")
	}
	bo := g.order()
	h.tag = uint32(bo.Uint16(b))<<16 | uint32(bo.Uint16(b[2:]))
	if g.implicit || h.tag>>16 == 0xFFFE {
		h.n = bo.Uint32(b[4:])
		g.pos += 8
		return h, nil
	}
	h.vr = string(b[4:6])
	switch h.vr {
	case "OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV":
		if len(b) < 12 {
			return h, broken(g.pos, "the file ends in the head of element (%04X,%04X)", h.tag>>16, h.tag&0xFFFF)
		}
		h.n = bo.Uint32(b[8:])
		g.pos += 12
	default:
		if b[4] < 'A' || b[4] > 'Z' || b[5] < 'A' || b[5] > 'Z' {
			return h, broken(g.pos+4, "element (%04X,%04X) has value representation %q, want two capitals", h.tag>>16, h.tag&0xFFFF, h.vr)
		}
		h.n = uint32(bo.Uint16(b[6:]))
		g.pos += 8
	}
	return h, nil
}

// value returns the bytes of an element of defined length and moves past them.
func (g *guard) value(h head) ([]byte, error) {
	if h.n == undefined {
		return nil, broken(h.at, "element (%04X,%04X) may not have undefined length", h.tag>>16, h.tag&0xFFFF)
	}
	if uint64(h.n) > uint64(len(g.b)-g.pos) {
		return nil, broken(h.at, "element (%04X,%04X) has %d bytes, the file ends after %d", h.tag>>16, h.tag&0xFFFF, h.n, len(g.b)-g.pos)
	}
	v := g.b[g.pos : g.pos+int(h.n)]
	g.pos += int(h.n)
	return v, nil
}

// skip moves past the element h.
func (g *guard) skip(h head, depth int) error {
	if h.n != undefined {
		_, err := g.value(h)
		return err
	}
	switch h.vr {
	case "", "SQ", "UN", "OB", "OW":
	default:
		return broken(h.at, "element (%04X,%04X) of type %s may not have undefined length", h.tag>>16, h.tag&0xFFFF, h.vr)
	}
	return g.sequence(h, depth, nil)
}

// sequence walks the items of the sequence h, whose length may be undefined,
// and calls each, if there is one, for every wanted element of every item.
func (g *guard) sequence(h head, depth int, each func(item int, e head) error) error {
	if depth >= maxDepth {
		return broken(h.at, "sequences nest deeper than %d", maxDepth)
	}
	implicit := g.implicit
	if h.vr == "UN" {
		g.implicit = true // DICOM PS3.5, 6.2.2 note 2
		defer func() { g.implicit = implicit }()
	}
	b, end, err := g.enter(h)
	if err != nil {
		return err
	}
	defer func() { g.b = b }()
	for i := 0; g.pos < len(g.b); i++ {
		it, err := g.head()
		if err != nil {
			return err
		}
		if it.tag == tagSeqEnd && !end {
			return nil
		}
		if it.tag != tagItem {
			return broken(it.at, "want an item of sequence (%04X,%04X), found (%04X,%04X)", h.tag>>16, h.tag&0xFFFF, it.tag>>16, it.tag&0xFFFF)
		}
		if err := g.item(it, i, depth, each); err != nil {
			return err
		}
	}
	if !end {
		return broken(len(g.b), "sequence (%04X,%04X) does not end", h.tag>>16, h.tag&0xFFFF)
	}
	return nil
}

// item walks the elements of the i-th item of a sequence.
func (g *guard) item(it head, i, depth int, each func(item int, e head) error) error {
	b, end, err := g.enter(it)
	if err != nil {
		return err
	}
	defer func() { g.b = b }()
	if end && each == nil { // nothing inside is wanted and its length is known
		g.pos = len(g.b)
		return nil
	}
	for g.pos < len(g.b) {
		e, err := g.head()
		if err != nil {
			return err
		}
		if e.tag == tagItemEnd && !end {
			return nil
		}
		if e.tag>>16 == 0xFFFE {
			return broken(e.at, "delimiter (%04X,%04X) inside an item", e.tag>>16, e.tag&0xFFFF)
		}
		if each != nil && wanted[e.tag] != "" {
			err = each(i, e)
		} else {
			err = g.skip(e, depth+1)
		}
		if err != nil {
			return err
		}
	}
	if !end {
		return broken(len(g.b), "an item does not end")
	}
	return nil
}

// enter narrows g.b to the value of h if its length is defined (then end is
// true) and returns the old one.
func (g *guard) enter(h head) (old []byte, end bool, err error) {
	old = g.b
	if h.n == undefined {
		return old, false, nil
	}
	if uint64(h.n) > uint64(len(g.b)-g.pos) {
		return nil, false, broken(h.at, "(%04X,%04X) has %d bytes, %d remain", h.tag>>16, h.tag&0xFFFF, h.n, len(g.b)-g.pos)
	}
	g.b = g.b[:g.pos+int(h.n)]
	return old, true, nil
}

// keep reads the element h, one that is wanted.
func (g *guard) keep(h head, depth int) (element, error) {
	e := element{tag: h.tag, vr: wanted[h.tag]}
	if e.vr == "SQ" {
		if depth > 0 {
			return e, g.skip(h, depth)
		}
		err := g.sequence(h, depth, func(item int, in head) error {
			sub, err := g.keep(in, depth+1)
			if err != nil {
				return err
			}
			for len(e.items) <= item {
				e.items = append(e.items, nil)
			}
			e.items[item] = append(e.items[item], sub)
			return nil
		})
		return e, err
	}
	v, err := g.value(h)
	if err != nil {
		return e, err
	}
	if len(v) > maxValue || e.vr != "OB" && len(v) > 0xFFF0 {
		return e, broken(h.at, "element (%04X,%04X) has %d bytes", h.tag>>16, h.tag&0xFFFF, len(v))
	}
	if e.vr == "US" && len(v) != 0 && len(v) != 2 {
		return e, broken(h.at, "element (%04X,%04X) has %d bytes, want 2", h.tag>>16, h.tag&0xFFFF, len(v))
	}
	if g.big && (e.vr == "US" || e.vr == "OB") {
		v = swap16(v)
	}
	e.val = v
	return e, nil
}

// swap16 returns a copy of b with the bytes of its 16-bit words swapped.
func swap16(b []byte) []byte {
	out := bytes.Clone(b)
	for i := 0; i+1 < len(out); i += 2 {
		out[i], out[i+1] = out[i+1], out[i]
	}
	return out
}

// pixels notes where the value of the pixel data element h lies.
func (g *guard) pixels(h head, l *layout) error {
	if l.syntax.native() {
		if h.n == undefined {
			return broken(h.at, "pixel data of undefined length in an uncompressed file")
		}
		v, err := g.value(h)
		if err != nil {
			return err
		}
		l.native = span{g.pos - len(v), len(v)}
		l.bigOW = g.big && h.vr != "OB"
		return nil
	}
	if h.n != undefined {
		return broken(h.at, "pixel data of length %d in a compressed file, want undefined length and fragments", h.n)
	}
	for first := true; ; first = false {
		it, err := g.head()
		if err != nil {
			return err
		}
		if it.tag == tagSeqEnd {
			break
		}
		if it.tag != tagItem {
			return broken(it.at, "want a fragment of the pixel data, found (%04X,%04X)", it.tag>>16, it.tag&0xFFFF)
		}
		v, err := g.value(it)
		if err != nil {
			return err
		}
		s := span{g.pos - len(v), len(v)}
		if first {
			l.offsets = s
		} else {
			l.fragments = append(l.fragments, s)
		}
	}
	if len(l.fragments) == 0 {
		return broken(h.at, "the pixel data hold no fragment")
	}
	return nil
}

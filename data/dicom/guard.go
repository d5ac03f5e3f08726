package dicom

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
)

// The guard goes through the elements of a file before any parser sees them. It
// compares every length with the bytes in the file, and records the few
// elements that a film needs and the position of the pixels. Only these
// elements go to the parser (header.go), rewritten in explicit little endian
// with lengths that the guard has checked. Pixels never go to the parser.

// A span is a part of the stream, in bytes.
type span struct{ off, n int }

// An element is one that the guard keeps.
type element struct {
	tag     uint32    // group<<16 | element
	vr      string    // from the table wanted, not from the file
	val     []byte    // little endian; empty for a sequence
	hasItem bool      // a sequence that is not empty
	item    []element // the elements of the first item, each tag once
	again   bool      // not the first element with this tag
}

// A layout holds what the guard found in a file.
type layout struct {
	syntax   Syntax
	bare     bool      // a data set without meta information; its syntax is a guess
	kept     []element // each tag once
	stream   []byte    // the bytes to which spans refer: the file, or its inflated rest
	warnings []string

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

	// maxDepth is the deepest nesting of sequences; real files stay below ten.
	maxDepth = 32
	// maxValue is the longest value that is kept: a palette or look-up table of
	// 65536 entries has 128 KiB.
	maxValue = 1 << 17
	// maxWarnings is the largest number of warnings about one file.
	maxWarnings = 32
)

// warn adds a warning about a fault that does not affect the pixels, unless it
// is there already.
func (l *layout) warn(format string, a ...any) {
	w := fmt.Sprintf(format, a...)
	if len(l.warnings) < maxWarnings && !slices.Contains(l.warnings, w) {
		l.warnings = append(l.warnings, w)
	}
}

// wanted has the VR of each element that a film needs. Tables are kept as OB,
// in little-endian words, whatever VR they have in the file.
var wanted = map[uint32]string{
	0x00020010: "UI", // transfer syntax
	0x00080005: "CS", // character set
	0x00080016: "UI", // SOP class
	0x00080018: "UI", // SOP instance
	0x00080020: "DA", // study date
	0x00080030: "TM", // study time
	0x00080050: "SH", // accession number
	0x00080060: "CS", // modality
	0x00080064: "CS", // conversion type
	0x00080090: "PN", // referring physician
	0x00100010: "PN", // patient name
	0x00100020: "LO", // patient id
	0x00100030: "DA", // birth date
	0x00100040: "CS", // sex
	0x00101010: "AS", // age
	0x00180015: "CS", // body part
	0x00180050: "DS", // slice thickness
	0x00181164: "DS", // imager pixel spacing
	0x00182010: "DS", // nominal scanned pixel spacing
	0x00185101: "CS", // view position
	0x0020000D: "UI", // study
	0x0020000E: "UI", // series
	0x00200010: "SH", // study id
	0x00200011: "IS", // series number
	0x00200013: "IS", // instance number
	0x00200020: "CS", // patient orientation
	0x00200032: "DS", // image position
	0x00200037: "DS", // image orientation
	0x00200052: "UI", // frame of reference
	0x00201040: "LO", // position reference indicator
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
	0x00280120: "OB", // pixel padding value, US or SS
	0x00280121: "OB", // pixel padding range limit
	0x00280301: "CS", // burned in annotation
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
	0x00282110: "CS", // lossy image compression
	0x00282112: "DS", // lossy image compression ratio
	0x00282114: "CS", // lossy image compression method
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
	at  int // offset of the element
	tag uint32
	vr  string // empty in implicit encoding and for items
	n   uint32
}

// survey checks a whole DICOM file and returns where its parts are. It inflates
// at most maxBytes.
func survey(file []byte, maxBytes int64) (*layout, error) {
	g := &guard{b: file}
	l := &layout{stream: file}
	switch has := beginning(file); {
	case len(file) >= HeadBytes && string(file[128:HeadBytes]) == "DICM":
		g.pos = HeadBytes
	case has == metaInformation:
		l.warn("the file has no preamble; it begins with its meta information")
	case has != "":
		l.syntax, l.bare = has, true
		l.warn("the file has neither preamble nor meta information; it is read as %s", has.Name())
	case len(file) < HeadBytes:
		return nil, broken(len(file), "the file has %d bytes, a DICOM file begins with a preamble of 128 bytes and DICM", len(file))
	default:
		return nil, broken(128, "want DICM after the preamble, found %q: not a DICOM file", file[128:HeadBytes])
	}
	if !l.bare {
		if err := g.meta(l); err != nil {
			return nil, err
		}
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
	if !l.bare {
		g.correct()
	}
	return l, g.dataset(l)
}

// HeadBytes is the number of bytes at the beginning of a file that Is needs: the
// preamble and "DICM".
const HeadBytes = 132

// Is reports whether a file looks like DICOM. head is its first HeadBytes, or all of
// a shorter file.
func Is(head []byte) bool {
	return len(head) >= HeadBytes && string(head[128:HeadBytes]) == "DICM" || beginning(head) != ""
}

// metaInformation marks a file that begins with its group 2.
const metaInformation Syntax = "group 2"

// beginning returns metaInformation if a file without preamble begins with group 2,
// its syntax if it begins with a data set, and "" if it does not look like DICOM. A
// data set begins with group 8, whose first elements are few and short.
func beginning(file []byte) Syntax {
	if len(file) < 8 {
		return ""
	}
	vr := file[4:6]
	short := func(n uint32) bool { return n <= 1024 && int(n) <= len(file)-8 }
	switch le := binary.LittleEndian; {
	case le.Uint16(file) == 2 && le.Uint16(file[2:]) <= 0x10 && knownVR(vr):
		return metaInformation
	case le.Uint16(file) == 8 && le.Uint16(file[2:]) <= 0x60 && knownVR(vr):
		return ExplicitLittleEndian
	case le.Uint16(file) == 8 && le.Uint16(file[2:]) <= 0x60 && short(le.Uint32(file[4:])):
		return ImplicitLittleEndian
	}
	if be := binary.BigEndian; be.Uint16(file) == 8 && be.Uint16(file[2:]) <= 0x60 && knownVR(vr) {
		return ExplicitBigEndian
	}
	return ""
}

// knownVR reports whether vr is a value representation.
func knownVR(vr []byte) bool {
	return strings.Contains(" AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV ", " "+string(vr)+" ")
}

// correct handles data sets that are implicit although the transfer syntax says
// explicit, or the reverse; some writers make this error. The first element
// decides.
func (g *guard) correct() {
	if len(g.b)-g.pos < 8 || g.big {
		return
	}
	n := binary.LittleEndian.Uint32(g.b[g.pos+4:])
	known := knownVR(g.b[g.pos+4 : g.pos+6])
	switch {
	case g.implicit && known && int64(n) > int64(len(g.b)-g.pos-8):
		g.implicit = false
	case !g.implicit && !known && int64(n) <= int64(len(g.b)-g.pos-8):
		g.implicit = true
	}
}

// inflate returns the inflated stream, or the part of it before an error; reading
// the elements shows whether anything is missing. It stops at maxBytes, and at 32
// MiB plus 200 bytes for each byte of b: deflate can put a thousand zeros in a
// byte, but real films do not.
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
	if !IsUID(string(l.syntax)) {
		return broken(g.pos, "the transfer syntax (0002,0010) is %.64q, want a UID", l.syntax)
	}
	return nil
}

// dataset reads elements up to and including the pixels. What follows the
// pixels is not read.
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
		if l.kept, err = l.add(l.kept, e, h.at); err != nil {
			return err
		}
	}
	return nil
}

// add puts e, which begins at byte at, into list. If the tag is there already, it
// is an error if the difference could change the pixels; otherwise the last one
// counts.
func (l *layout) add(list []element, e element, at int) ([]element, error) {
	i := slices.IndexFunc(list, func(o element) bool { return o.tag == e.tag })
	if i < 0 {
		return append(list, e), nil
	}
	group, number := e.tag>>16, e.tag&0xFFFF
	if same := e.vr != "SQ" && bytes.Equal(list[i].val, e.val); !same && (group == 0x0028 || e.vr == "SQ") {
		return nil, broken(at, "element (%04X,%04X) occurs twice, with different values", group, number)
	}
	if !list[i].again {
		l.warn("element (%04X,%04X) occurs more than once", group, number)
	}
	e.again = true
	list[i] = e
	return list, nil
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

// value returns the bytes of an element of defined length and advances past
// them.
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

// skip advances past the element h.
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
	_, err := g.sequence(h, depth, nil)
	return err
}

// sequence goes through the items of the sequence h, whose length may be
// undefined. If each is not nil, it is called for every wanted element of the
// first item. sequence returns the number of items.
func (g *guard) sequence(h head, depth int, each func(e head) error) (items int, err error) {
	if depth >= maxDepth {
		return 0, broken(h.at, "sequences nest deeper than %d", maxDepth)
	}
	implicit := g.implicit
	if h.vr == "UN" {
		g.implicit = true // DICOM PS3.5, 6.2.2 note 2
		defer func() { g.implicit = implicit }()
	}
	b, end, err := g.enter(h)
	if err != nil {
		return 0, err
	}
	defer func() { g.b = b }()
	for ; g.pos < len(g.b); items++ {
		it, err := g.head()
		if err != nil {
			return 0, err
		}
		if it.tag == tagSeqEnd && !end {
			return items, nil
		}
		if it.tag != tagItem {
			return 0, broken(it.at, "want an item of sequence (%04X,%04X), found (%04X,%04X)", h.tag>>16, h.tag&0xFFFF, it.tag>>16, it.tag&0xFFFF)
		}
		if err := g.item(it, depth, each); err != nil {
			return 0, err
		}
		each = nil
	}
	if !end {
		return 0, broken(len(g.b), "sequence (%04X,%04X) does not end", h.tag>>16, h.tag&0xFFFF)
	}
	return items, nil
}

// item goes through the elements of an item of a sequence.
func (g *guard) item(it head, depth int, each func(e head) error) error {
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
			err = each(e)
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
// true) and returns the old g.b.
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

// keep reads the wanted element h.
func (g *guard) keep(h head, depth int) (element, error) {
	e := element{tag: h.tag, vr: wanted[h.tag]}
	if e.vr == "SQ" {
		if depth > 0 {
			return e, g.skip(h, depth)
		}
		n, err := g.sequence(h, depth, func(in head) error {
			sub, err := g.keep(in, depth+1)
			if err != nil {
				return err
			}
			e.item, err = new(layout).add(e.item, sub, in.at)
			return err
		})
		e.hasItem = n > 0
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

// items counts the items of defined length from here on, as far as they fit in
// the rest of the file.
func (g *guard) items() (n int) {
	for b := g.b[g.pos:]; len(b) >= 8 && binary.LittleEndian.Uint32(b) == 0xE000FFFE; n++ {
		b = b[min(uint64(len(b)), 8+uint64(binary.LittleEndian.Uint32(b[4:]))):]
	}
	return n
}

// pixels records where the value of the pixel data element h lies.
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
	l.fragments = make([]span, 0, max(0, g.items()-1))
	for first := true; ; first = false {
		if rest := g.b[g.pos:]; !first && len(rest) < 8 && bytes.HasPrefix([]byte("\xFE\xFF\xDD\xE0\x00\x00\x00\x00"), rest) {
			l.warn("the file ends without the delimiter of its pixel data")
			break
		}
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

package dicom

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"image/jpeg"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/data/dicom/internal/part10"
	"github.com/hcunet/hcunet/internal/golden"
)

// el is an element of a test file; val is a string, an int (US), bytes or a
// list of items.
type el struct {
	tag uint32
	vr  string
	val any
}

// build writes a file with that syntax; it does not check whether the elements
// are valid.
func build(syntax Syntax, elems ...el) []byte {
	out := append(make([]byte, 128), "DICM"...)
	meta := part10.Element(nil, tagSyntax, "UI", []byte(part10.Pad(string(syntax), 0)))
	out = part10.Element(out, 0x00020000, "UL", binary.LittleEndian.AppendUint32(nil, uint32(len(meta))))
	out = append(out, meta...)
	body := encode(syntax, elems)
	if syntax == Deflated {
		var z bytes.Buffer
		w, _ := flate.NewWriter(&z, flate.BestCompression)
		w.Write(body)
		w.Close()
		body = z.Bytes()
	}
	return append(out, body...)
}

func encode(syntax Syntax, elems []el) []byte {
	var bo binary.AppendByteOrder = binary.LittleEndian
	if syntax == ExplicitBigEndian {
		bo = binary.BigEndian
	}
	var b []byte
	for _, e := range elems {
		var val []byte
		n := -1
		switch v := e.val.(type) {
		case string:
			val = []byte(part10.Pad(v, ' '))
		case int:
			val = bo.AppendUint16(nil, uint16(v))
		case []byte:
			val = v
		case []uint16:
			for _, w := range v {
				val = bo.AppendUint16(val, w)
			}
		case [][]el: // a sequence of undefined length, its items of defined length
			for _, it := range v {
				body := encode(syntax, it)
				val = bo.AppendUint16(bo.AppendUint16(val, 0xFFFE), 0xE000)
				val = append(bo.AppendUint32(val, uint32(len(body))), body...)
			}
			val = bo.AppendUint32(bo.AppendUint16(bo.AppendUint16(val, 0xFFFE), 0xE0DD), 0)
			n = undefined
		case [][]byte: // fragments
			for _, f := range v {
				val = bo.AppendUint16(bo.AppendUint16(val, 0xFFFE), 0xE000)
				val = append(bo.AppendUint32(val, uint32(len(f))), f...)
			}
			val = bo.AppendUint32(bo.AppendUint16(bo.AppendUint16(val, 0xFFFE), 0xE0DD), 0)
			n = undefined
		}
		if n < 0 {
			n = len(val)
		}
		b = bo.AppendUint16(bo.AppendUint16(b, uint16(e.tag>>16)), uint16(e.tag))
		switch {
		case syntax == ImplicitLittleEndian:
			b = bo.AppendUint32(b, uint32(n))
		case e.vr == "OB" || e.vr == "OW" || e.vr == "SQ" || e.vr == "UN":
			b = bo.AppendUint32(append(b, e.vr[0], e.vr[1], 0, 0), uint32(n))
		default:
			b = bo.AppendUint16(append(b, e.vr[0], e.vr[1]), uint16(n))
		}
		b = append(b, val...)
	}
	return b
}

// imageHeader returns the image pixel elements of a frame of 3 columns and 2 rows.
func imageHeader(photometric string, samples, allocated, stored, signed int, more ...el) []el {
	return append([]el{
		{0x00280002, "US", samples},
		{0x00280004, "CS", photometric},
		{0x00280010, "US", 2},
		{0x00280011, "US", 3},
		{0x00280100, "US", allocated},
		{0x00280101, "US", stored},
		{0x00280102, "US", stored - 1},
		{0x00280103, "US", signed},
	}, more...)
}

func pixels(v any) el { return el{tagPixels, "OW", v} }

var (
	mono8    = imageHeader("MONOCHROME2", 1, 8, 8, 0)
	six      = []byte{0, 1, 2, 100, 200, 255} // rows 0 1 2 and 100 200 255
	sixGrey  = append(imageHeader("MONOCHROME2", 1, 8, 8, 0), pixels(six))
	sixWords = []uint16{0, 1, 300, 1000, 4000, 4095}
)

// rleFrame codes planes as literal runs of RLE Lossless.
func rleFrame(planes ...[]byte) []byte {
	b := make([]byte, 64)
	b[0] = byte(len(planes))
	for i, p := range planes {
		binary.LittleEndian.PutUint32(b[4+4*i:], uint32(len(b)))
		b = append(append(b, byte(len(p)-1)), p...)
		if len(b)%2 == 1 {
			b = append(b, 0)
		}
	}
	return b
}

func with(elems []el, more ...el) []el { return append(append([]el(nil), elems...), more...) }

func TestPixels(t *testing.T) {
	lut := func(n, first, bits int, v ...uint16) []el {
		return []el{{0x00283002, "US", []uint16{uint16(n), uint16(first), uint16(bits)}}, {0x00283006, "OW", v}}
	}
	palette := []el{
		{0x00281101, "US", []uint16{3, 10, 8}}, {0x00281102, "US", []uint16{3, 10, 8}}, {0x00281103, "US", []uint16{3, 10, 8}},
		{0x00281201, "OW", []uint16{255, 0, 0}}, {0x00281202, "OW", []uint16{0, 255, 0}}, {0x00281203, "OW", []uint16{0, 0, 255}},
	}
	rgb := []byte{255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9, 255, 255, 255, 0, 0, 0}
	grey := []uint8{76, 150, 29, 9, 255, 0} // 0.299, 0.587 and 0.114 of 255
	for _, c := range []struct {
		name   string
		syntax Syntax // explicit little endian if empty
		elems  []el
		opt    *Options
		pix8   []uint8
		pix16  []uint16
		bits   int
		offset float64
		scale  float64
	}{
		{name: "8 bits", elems: sixGrey, pix8: six, bits: 8, scale: 1},
		{name: "implicit", syntax: ImplicitLittleEndian, elems: sixGrey, pix8: six, bits: 8, scale: 1},
		{name: "deflated", syntax: Deflated, elems: sixGrey, pix8: six, bits: 8, scale: 1},
		{name: "big endian, 8 bits in words", syntax: ExplicitBigEndian,
			elems: with(mono8, pixels([]byte{1, 0, 100, 2, 255, 200})), pix8: six, bits: 8, scale: 1},
		{name: "big endian, bytes", syntax: ExplicitBigEndian,
			elems: with(mono8, el{tagPixels, "OB", six}), pix8: six, bits: 8, scale: 1},
		{name: "inverted", elems: with(imageHeader("MONOCHROME1", 1, 8, 8, 0), pixels(six)),
			pix8: []uint8{255, 254, 253, 155, 55, 0}, bits: 8, scale: -1, offset: 255},
		{name: "12 bits", elems: with(imageHeader("MONOCHROME2", 1, 16, 12, 0), pixels(sixWords)), pix16: sixWords, bits: 12, scale: 1},
		{name: "12 bits, big endian", syntax: ExplicitBigEndian,
			elems: with(imageHeader("MONOCHROME2", 1, 16, 12, 0), pixels(sixWords)), pix16: sixWords, bits: 12, scale: 1},
		{name: "12 bits under an overlay", elems: with(imageHeader("MONOCHROME2", 1, 16, 12, 0), pixels([]uint16{0x1000, 0xF001, 300, 1000, 4000, 0x8FFF})),
			pix16: sixWords, bits: 12, scale: 1},
		{name: "12 bits inverted", elems: with(imageHeader("MONOCHROME1", 1, 16, 12, 0), pixels(sixWords)),
			pix16: []uint16{4095, 4094, 3795, 3095, 95, 0}, bits: 12, scale: -1, offset: 4095},
		{name: "12 bits signed", elems: with(imageHeader("MONOCHROME2", 1, 16, 12, 1), pixels([]uint16{0, 1, 2047, 0xF800, 0xFFFF, 0x0FFF})),
			pix16: []uint16{2048, 2049, 4095, 0, 2047, 2047}, bits: 12, scale: 1, offset: -2048},
		{name: "rescaled", opt: &Options{ApplyModality: true},
			elems: with(imageHeader("MONOCHROME2", 1, 16, 12, 0, el{0x00281052, "DS", "-1024"}, el{0x00281053, "DS", "2.5"}), pixels(sixWords)),
			pix16: sixWords, bits: 12, scale: 2.5, offset: -1024},
		{name: "rescaled by a negative slope", opt: &Options{ApplyModality: true},
			elems: with(imageHeader("MONOCHROME2", 1, 16, 12, 0, el{0x00281053, "DS", "-2"}), pixels(sixWords)),
			pix16: []uint16{4095, 4094, 3795, 3095, 95, 0}, bits: 12, scale: 2, offset: -8190},
		{name: "modality LUT", opt: &Options{ApplyModality: true},
			elems: with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00283000, "SQ", [][]el{lut(3, 1, 12, 4000, 5, 7)}}), pixels(six)),
			pix16: []uint16{4000, 4000, 5, 7, 7, 7}, bits: 12, scale: 1},
		{name: "VOI LUT", opt: &Options{ApplyVOI: true},
			elems: with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00283010, "SQ", [][]el{lut(3, 1, 8, 10, 20, 255)}}), pixels(six)),
			pix8:  []uint8{10, 10, 20, 255, 255, 255}, bits: 8},
		{name: "VOI LUT inverted, implicit", syntax: ImplicitLittleEndian, opt: &Options{ApplyVOI: true},
			elems: with(imageHeader("MONOCHROME1", 1, 8, 8, 0, el{0x00283010, "SQ", [][]el{lut(3, 1, 8, 10, 20, 255)}}), pixels(six)),
			pix8:  []uint8{245, 245, 235, 0, 0, 0}, bits: 8},
		{name: "no VOI asked for", elems: with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00281050, "DS", "100"}, el{0x00281051, "DS", "2"}), pixels(six)),
			pix8: six, bits: 8, scale: 1},
		{name: "unknown character set", elems: with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00080005, "CS", "NOT A SET"}), pixels(six)),
			pix8: six, bits: 8, scale: 1},
		{name: "lossless JPEG", syntax: JPEGLosslessSV1, elems: with(mono8, pixels([][]byte{nil, mustHex(t, tinyLossless)})),
			pix8: six, bits: 8, scale: 1},
		{name: "no VOI in the file", opt: &Options{ApplyVOI: true}, elems: sixGrey, pix8: six, bits: 8, scale: 1},
		{name: "window, first of two", opt: &Options{ApplyVOI: true},
			elems: with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00281050, "DS", `100.5\7`}, el{0x00281051, "DS", `3\9`}), pixels(six)),
			pix8:  []uint8{0, 0, 0, 128, 255, 255}, bits: 8},
		{name: "RGB", elems: with(imageHeader("RGB", 3, 8, 8, 0), pixels(rgb)), pix8: grey, bits: 8},
		{name: "RGB by planes", elems: with(imageHeader("RGB", 3, 8, 8, 0, el{0x00280006, "US", 1}),
			pixels([]byte{255, 0, 0, 9, 255, 0, 0, 255, 0, 9, 255, 0, 0, 0, 255, 9, 255, 0})), pix8: grey, bits: 8},
		{name: "RLE RGB", syntax: RLELossless, elems: with(imageHeader("RGB", 3, 8, 8, 0),
			pixels([][]byte{nil, rleFrame([]byte{255, 0, 0, 9, 255, 0}, []byte{0, 255, 0, 9, 255, 0}, []byte{0, 0, 255, 9, 255, 0})})),
			pix8: grey, bits: 8},
		{name: "RLE 16 bits", syntax: RLELossless, elems: with(imageHeader("MONOCHROME2", 1, 16, 12, 0),
			pixels([][]byte{nil, rleFrame([]byte{0, 0, 1, 3, 15, 15}, []byte{0, 1, 44, 232, 160, 255})})),
			pix16: sixWords, bits: 12, scale: 1},
		{name: "YBR", elems: with(imageHeader("YBR_FULL", 3, 8, 8, 0), pixels(rgb)), pix8: []uint8{255, 0, 0, 9, 255, 0}, bits: 8},
		{name: "YBR 4:2:2", elems: with(imageHeader("YBR_FULL_422", 3, 8, 8, 0), pixels([]byte{1, 2, 128, 128, 3, 4, 128, 128, 5, 6, 128, 128})),
			pix8: []uint8{1, 2, 3, 4, 5, 6}, bits: 8},
		{name: "palette", elems: with(imageHeader("PALETTE COLOR", 1, 8, 8, 0, palette...), pixels([]byte{10, 11, 12, 0, 255, 11})),
			pix8: []uint8{76, 150, 29, 76, 29, 150}, bits: 8},
		{name: "one bit", elems: with(imageHeader("MONOCHROME2", 1, 1, 1, 0), pixels([]byte{0b00101101, 0})),
			pix8: []uint8{1, 0, 1, 1, 0, 1}, bits: 1, scale: 1},
		{name: "second frame of one bit", opt: &Options{Frame: 1}, elems: with(imageHeader("MONOCHROME2", 1, 1, 1, 0, el{0x00280008, "IS", "2"}),
			pixels([]byte{0b01101101, 0b00001000})), pix8: []uint8{1, 0, 0, 0, 0, 1}, bits: 1, scale: 1},
		{name: "second of two frames", opt: &Options{Frame: 1},
			elems: with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00280008, "IS", "2"}), pixels(append([]byte{9, 9, 9, 9, 9, 9}, six...))),
			pix8:  six, bits: 8, scale: 1},
		{name: "second of two fragments", opt: &Options{Frame: 1}, syntax: RLELossless,
			elems: with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00280008, "IS", "2"}),
				pixels([][]byte{nil, rleFrame([]byte{9, 9, 9, 9, 9, 9}), rleFrame(six)})),
			pix8: six, bits: 8, scale: 1},
		{name: "second frame by offsets", opt: &Options{Frame: 1}, syntax: RLELossless,
			elems: with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00280008, "IS", "2"}),
				pixels([][]byte{{0, 0, 0, 0, 80, 0, 0, 0}, rleFrame([]byte{9, 9, 9, 9, 9, 9}), rleFrame(six)[:40], rleFrame(six)[40:]})),
			pix8: six, bits: 8, scale: 1},
		{name: "32 bits", elems: with(imageHeader("MONOCHROME2", 1, 32, 32, 0),
			pixels([]uint16{0, 16, 1, 16, 2, 16, 3, 16, 4, 16, 5, 17})), pix16: []uint16{0, 1, 2, 3, 4, 65535}, bits: 16,
			scale: float64(1<<16+5) / 65535, offset: 16 << 16},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.syntax == "" {
				c.syntax = ExplicitLittleEndian
			}
			f, err := Read(bytes.NewReader(build(c.syntax, c.elems...)), c.opt)
			require.NoError(t, err)
			assert.Equal(t, c.pix8, f.Pix8)
			assert.Equal(t, c.pix16, f.Pix16)
			assert.Equal(t, [3]int{2, 3, c.bits}, [3]int{f.Rows, f.Columns, f.Bits})
			assert.InDelta(t, c.scale, f.Scale, 1e-12, "scale")
			assert.InDelta(t, c.offset, f.Offset, 1e-9, "offset")
			assert.Len(t, f.Gray().Pix, 6)
			assert.Len(t, f.Gray16().Pix, 12)
		})
	}
}

// What came out of pydicom 2.3.1's apply_modality_lut and apply_windowing, as a
// fraction of its output range, for stored values of 12 bits, slope 1.5,
// intercept -10, window center 40 and width 80:
//
//	m = apply_modality_lut(np.array(stored, np.uint16), d)
//	y0, y1 = 1.5*0 - 10, 1.5*4095 - 10
//	(apply_windowing(m, d) - y0) / (y1 - y0)
func TestWindowsAgreeWithPydicom(t *testing.T) {
	stored := []float64{0, 1, 6, 7, 20, 33, 34, 59, 60, 61, 4095}
	for name, want := range map[string][]float64{
		"LINEAR":       {0, 0, 0, 0.006329, 0.253165, 0.5, 0.518987, 0.993671, 1, 1, 1},
		"LINEAR_EXACT": {0, 0, 0, 0.00625, 0.25, 0.49375, 0.5125, 0.98125, 1, 1, 1},
		"SIGMOID":      {0.075858, 0.081286, 0.114052, 0.121853, 0.268941, 0.49375, 0.512497, 0.872695, 0.880797, 0.888449, 1},
	} {
		w, err := window(name, 40, 80)
		require.NoError(t, err)
		for i, s := range stored {
			assert.InDelta(t, want[i], w(1.5*s-10), 1e-6, "%s of %g", name, s) // the table has six digits
		}
	}
}

func TestErrors(t *testing.T) {
	var format *FormatError
	var unsupported *UnsupportedError
	shape := func(tag uint32, v int) []el {
		e := with(sixGrey)
		for i := range e {
			if e[i].tag == tag {
				e[i].val = v
			}
		}
		return e
	}
	for _, c := range []struct {
		name string
		file []byte
		opt  *Options
		kind any // **FormatError, **UnsupportedError or error
		want string
	}{
		{"empty", nil, nil, &format, "at byte 0: the file has 0 bytes"},
		{"no DICM", make([]byte, 200), nil, &format, "at byte 128: want DICM"},
		{"no syntax", append(append(make([]byte, 128), "DICM"...), 8, 0, 0, 0), nil, &format, "no transfer syntax"},
		{"no image", build(ExplicitLittleEndian, mono8...), nil, ErrNoPixels, "no pixel data"},
		{"no rows", build(ExplicitLittleEndian, with(shape(0x00280010, 0))...), nil, &format, "without rows (0028,0010)"},
		{"MPEG", build("1.2.840.10008.1.2.4.100", with(mono8, pixels([][]byte{nil, {1}}))...), nil, &unsupported, "1.2.840.10008.1.2.4.100 (MPEG-2 Main Profile, Main Level)"},
		{"unknown syntax", build("1.2.3", with(mono8, pixels([][]byte{nil, {1}}))...), nil, &unsupported, "1.2.3 (unknown)"},
		{"no decoder", build("1.2.840.10008.1.2.4.203", with(mono8, pixels([][]byte{nil, {1}}))...), nil, &unsupported, "1.2.840.10008.1.2.4.203 (High-Throughput JPEG 2000) is not supported"},
		{"too few pixels", build(ExplicitLittleEndian, with(mono8, pixels(six[:4]))...), nil, &format, "pixel data have 4 bytes"},
		{"frame 1 of 1", build(ExplicitLittleEndian, sixGrey...), &Options{Frame: 1}, ErrFrame, "frame 1 asked for, the file has 1"},
		{"frame -1", build(ExplicitLittleEndian, sixGrey...), &Options{Frame: -1}, ErrFrame, "frame -1"},
		{"too large a file", build(ExplicitLittleEndian, sixGrey...), &Options{MaxBytes: 100}, ErrLimit, "more than 100 bytes"},
		{"inflates too far", build(Deflated, with(mono8, pixels(make([]byte, 10000)))...), &Options{MaxBytes: 5000}, ErrLimit, "inflates to more than 5000"},
		{"too many pixels", build(ExplicitLittleEndian, sixGrey...), &Options{MaxPixels: 5}, ErrLimit, "more than 5 pixels"},
		{"24 bits", build(ExplicitLittleEndian, shape(0x00280100, 24)...), nil, &unsupported, "24 bits allocated"},
		{"9 of 8 bits", build(ExplicitLittleEndian, shape(0x00280101, 9)...), nil, &format, "9 bits stored"},
		{"4 samples", build(ExplicitLittleEndian, shape(0x00280002, 4)...), nil, &unsupported, "4 samples"},
		{"CMYK", build(ExplicitLittleEndian, with(imageHeader("CMYK", 1, 8, 8, 0), pixels(six))...), nil, &unsupported, `"CMYK"`},
		{"float pixels", build(ExplicitLittleEndian, with(mono8, el{tagFloatPixels, "OB", []byte{}})...), nil, &unsupported, "floating-point"},
		{"frames: many", build(ExplicitLittleEndian, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00280008, "IS", "2000000000"}), pixels(six))...), nil, &format, "2000000000 frames"},
		{"frames: fewer than none", build(ExplicitLittleEndian, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00280008, "IS", "-1"}), pixels(six))...), nil, &format, `number of frames (0028,0008) is "-1"`},
		{"frames: 2^62", build(RLELossless, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00280008, "IS", "4611686018427387904"}), pixels([][]byte{nil, rleFrame(six)}))...), nil, &format, `number of frames (0028,0008) is "4611686018427387904"`},
		{"rows twice", build(ExplicitLittleEndian, with(sixGrey[:3], append([]el{{0x00280010, "US", 3}}, sixGrey[3:]...)...)...), nil, &format, "element (0028,0010) occurs twice"},
		{"a syntax of letters", build("explicit", sixGrey...), nil, &format, `the transfer syntax (0002,0010) is "explicit"`},
		{"slope 0", build(ExplicitLittleEndian, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00281053, "DS", "0"}), pixels(six))...), &Options{ApplyModality: true}, &format, "rescale slope"},
		{"slope x", build(ExplicitLittleEndian, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00281053, "DS", "x"}), pixels(six))...), &Options{ApplyModality: true}, &format, `is "x", want a number`},
		{"window of 0", build(ExplicitLittleEndian, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00281050, "DS", "1"}, el{0x00281051, "DS", "0"}), pixels(six))...), &Options{ApplyVOI: true}, &format, "window width"},
		{"window of a name", build(ExplicitLittleEndian, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00281050, "DS", "1"}, el{0x00281051, "DS", "2"}, el{0x00281056, "CS", "CUBIC"}), pixels(six))...), &Options{ApplyVOI: true}, &format, `"CUBIC"`},
		{"palette without data", build(ExplicitLittleEndian, with(imageHeader("PALETTE COLOR", 1, 8, 8, 0), pixels(six))...), nil, &format, "palette descriptor"},
		{"RLE of two segments", build(RLELossless, with(mono8, pixels([][]byte{nil, rleFrame(six, six)}))...), nil, &format, "2 segments, want 1"},
		{"RLE too short", build(RLELossless, with(mono8, pixels([][]byte{nil, rleFrame(six[:4])}))...), nil, &format, "holds 4 bytes, want 6"},
		{"frames and fragments", build(RLELossless, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00280008, "IS", "2"}), pixels([][]byte{nil, rleFrame(six)}))...), nil, &format, "2 frames in 1 fragments"},
		{"offset beside a fragment", build(RLELossless, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00280008, "IS", "2"}), pixels([][]byte{{3, 0, 0, 0, 80, 0, 0, 0}, rleFrame(six), rleFrame(six)}))...), nil, &format, "where no fragment begins"},
		{"no fragment", build(RLELossless, with(mono8, pixels([][]byte{nil}))...), nil, &format, "hold no fragment"},
		{"compressed of defined length", build(RLELossless, sixGrey...), nil, &format, "want undefined length"},
		{"not JPEG", build(JPEGBaseline, with(mono8, pixels([][]byte{nil, {1, 2, 3, 4}}))...), nil, &format, "want the start marker"},
		{"length past the end", build(ExplicitLittleEndian, el{0x00280010, "US", 2}, el{0x00281201, "OW", []byte{}})[:178], nil, &format, "ends in the head of an element"},
		{"bad VR", build(ExplicitLittleEndian, el{0x00280010, "U?", 2}, el{0x00280010, "US", 2}), nil, &format, "want two capitals"},
		{"item outside a sequence", build(ExplicitLittleEndian, el{0x00280010, "US", 2}, el{tagItem, "UN", []byte{}}), nil, &format, "outside a sequence"},
		{"rows of 4 bytes", build(ExplicitLittleEndian, el{0x00280010, "UL", []byte{1, 0, 0, 0}}), nil, &format, "want 2"},
		{"palette of 132 KiB", build(ExplicitLittleEndian, el{0x00281201, "OW", make([]byte, 132<<10)}), nil, &format, "has 135168 bytes"},
		{"deep sequences", append(build(ExplicitLittleEndian), nest(40)...), nil, &format, "nest deeper than 32"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Read(bytes.NewReader(c.file), c.opt)
			require.Error(t, err)
			assert.Nil(t, f)
			assert.ErrorContains(t, err, c.want)
			if target, ok := c.kind.(error); ok {
				assert.ErrorIs(t, err, target)
			} else {
				assert.ErrorAs(t, err, c.kind)
			}
		})
	}
}

// nest opens sequences in items in sequences, all of undefined length.
func nest(depth int) []byte {
	return bytes.Repeat([]byte("\x08\x00\x12\x21SQ\x00\x00\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF"), depth)
}

// Errors of the reader are returned.
func TestReaderFails(t *testing.T) {
	_, err := Read(iotest.ErrReader(io.ErrClosedPipe), nil)
	assert.ErrorIs(t, err, io.ErrClosedPipe)
	_, err = Open(filepath.Join(t.TempDir(), "none.dcm"), nil)
	assert.Error(t, err)
	f, err := Read(iotest.OneByteReader(bytes.NewReader(build(ExplicitLittleEndian, sixGrey...))), nil)
	require.NoError(t, err)
	assert.Equal(t, six, f.Pix8)
}

// Files of writers that declare explicit and write implicit, or the reverse.
func TestMislabelled(t *testing.T) {
	for _, c := range []struct{ says, is Syntax }{
		{ExplicitLittleEndian, ImplicitLittleEndian}, {ImplicitLittleEndian, ExplicitLittleEndian},
	} {
		elems := with([]el{{0x00080060, "CS", "CR"}}, sixGrey...)
		b := append(build(c.says), encode(c.is, elems)...)
		f, err := Read(bytes.NewReader(b), nil)
		require.NoError(t, err, c.says)
		assert.Equal(t, six, f.Pix8)
		assert.Equal(t, "CR", f.Modality)
	}
}

func TestWriteThenRead(t *testing.T) {
	want := Film{
		Rows: 2, Columns: 3, Bits: 8, Pix8: six, Scale: 1, Frames: 1,
		White: 255, RowSpacing: 0.143, ColumnSpacing: 0.5, Spacing: PixelSpacing, SliceThickness: 2.5,
		PatientID: "P-7 Ä", Sex: "F", Age: "038Y", StudyUID: "1.2.3", SeriesUID: "1.2.3.4", SOPInstanceUID: "1.2.3.4.5",
		SOPClassUID: secondaryCapture, Modality: "CR", BodyPart: "CHEST", View: "PA", ConversionType: "SYN",
		Syntax: ExplicitLittleEndian, Photometric: "MONOCHROME2",
		PatientName: "Ä^Ö", BirthDate: "19700102", ReferringPhysician: "B^C", StudyID: "7", AccessionNumber: "A7",
		StudyDate: "20261126", StudyTime: "0102", SeriesNumber: "3", InstanceNumber: "4",
		Lossy: true, LossyMethod: `ISO_15444_1\ISO_10918_1`, LossyRatio: `7\12.5`, BurnedIn: "NO",
		FrameOfReferenceUID: "1.2.3.9", PositionReference: "SN", PatientOrientation: `L\F`,
		Position: []float64{-1.5, 2, 1e-7}, Orientation: []float64{1, 0, 0, 0, 0.6, -0.8},
	}
	var b bytes.Buffer
	require.NoError(t, Write(&b, &want, ExplicitLittleEndian))
	got, err := Read(&b, nil)
	require.NoError(t, err)
	assert.Equal(t, &want, got)

	deep := want
	deep.Bits, deep.Pix8, deep.Pix16, deep.White, deep.Spacing = 12, nil, sixWords, 4095, ImagerSpacing
	require.NoError(t, Write(&b, &deep, ExplicitLittleEndian))
	got, err = Read(&b, nil)
	require.NoError(t, err)
	assert.Equal(t, &deep, got)

	// A smooth picture survives quality 95 within a few levels.
	soft := want
	soft.Spacing, soft.Rows, soft.Columns, soft.Pix8 = NominalSpacing, 21, 34, make([]uint8, 21*34)
	for i := range soft.Pix8 {
		soft.Pix8[i] = uint8(3*(i%34) + 5*(i/34))
	}
	require.NoError(t, Write(&b, &soft, JPEGBaseline))
	got, err = Read(&b, nil)
	require.NoError(t, err)
	assert.Equal(t, JPEGBaseline, got.Syntax)
	assert.Equal(t, NominalSpacing, got.Spacing)
	for i, v := range got.Pix8 {
		assert.InDelta(t, soft.Pix8[i], v, 3, "pixel %d", i)
	}
}

func TestWriteRefuses(t *testing.T) {
	good := Film{Rows: 1, Columns: 2, Bits: 8, Pix8: []uint8{1, 2}, SOPInstanceUID: "1", StudyUID: "2", SeriesUID: "3"}
	require.NoError(t, Write(io.Discard, &good, ExplicitLittleEndian))
	for want, spoil := range map[string]func(f *Film) Syntax{
		"cannot write transfer syntax":   func(f *Film) Syntax { return RLELossless },
		"cannot write 0 rows":            func(f *Film) Syntax { f.Rows = 0; return ExplicitLittleEndian },
		"has 1 pixels of 8":              func(f *Film) Syntax { f.Pix8 = f.Pix8[:1]; return ExplicitLittleEndian },
		"film of 12 bits":                func(f *Film) Syntax { f.Bits = 12; return ExplicitLittleEndian },
		"JPEG baseline holds 8 bits":     func(f *Film) Syntax { f.Bits = 7; return JPEGBaseline },
		"StudyUID is":                    func(f *Film) Syntax { f.StudyUID = "x"; return ExplicitLittleEndian },
		"cannot write PatientName: want": func(f *Film) Syntax { f.PatientName = `a\b`; return ExplicitLittleEndian },
	} {
		f := good
		s := spoil(&f)
		assert.ErrorContains(t, Write(io.Discard, &f, s), want)
	}
}

// The error for JPEG 2000 says how to read it.
func TestHintAtCodec(t *testing.T) {
	assert.ErrorContains(t, &UnsupportedError{Syntax: JPEG2000}, "-tags dicomcodec")
	assert.NotContains(t, (&UnsupportedError{Syntax: "1.2.3"}).Error(), "-tags")
}

func TestAgeYears(t *testing.T) {
	for age, want := range map[string]float64{"038Y": 38, "38": 38, "018M": 1.5, "0": 0, "010D": 10 / 365.25, "052W": 52 * 7 / 365.25} {
		got, ok := (&Film{Age: age}).AgeYears()
		assert.True(t, ok, age)
		assert.InDelta(t, want, got, 1e-12, age)
	}
	for _, age := range []string{"", "Y", "-3Y", "38X", "1e3", "3 8"} {
		_, ok := (&Film{Age: age}).AgeYears()
		assert.False(t, ok, age)
	}
}

// The hashes are of pixel_array in pydicom 2.3.1 (Debian 12).
func TestSIIM(t *testing.T) {
	for _, c := range []struct{ uid, sha256, age, sex, view string }{
		{"1.2.276.0.7230010.3.1.4.8323329.1000.1517875165.878027", "7c563efb42b3df4f15511d4d5a615f00ff4c09a1cc5f60352d54ea0b1c52de76", "38", "M", "PA"},
		{"1.2.276.0.7230010.3.1.4.8323329.10000.1517875220.938530", "e822408337339d2cb07281f82b87cb6bf5d7946ece06734d0a3130d931455a7b", "10", "F", "AP"},
		{"1.2.276.0.7230010.3.1.4.8323329.10001.1517875220.930580", "91e50f8d9ac66445b98de28fcea796103523d9a978ca3d427723390f594af6dd", "50", "F", "AP"},
		{"1.2.276.0.7230010.3.1.4.8323329.10002.1517875220.939397", "23fe704b8255e225d82ea63eda994a56a818a8c4bcb0a3a12e741f9f322e5c9d", "68", "F", "AP"},
		{"1.2.276.0.7230010.3.1.4.8323329.1314.1517875167.222290", "68552a0cf739684cad73c82a9a6de52804f1e5353695e1dd03af6584740c4ad2", "16", "M", "PA"},
		{"1.2.276.0.7230010.3.1.4.8323329.307.1517875162.311533", "9ae3810e8ca562c8e7de1595ffa007a07f4f6323e77d1f754fd15b81d5763ba6", "29", "M", "PA"},
		{"1.2.276.0.7230010.3.1.4.8323329.4440.1517875182.865105", "35145285c3c447d1096c22177776a861e7b6528e0ed1b412a3dbc812089d1158", "65", "F", "AP"},
		{"1.2.276.0.7230010.3.1.4.8323329.4904.1517875185.355709", "15b6f8f7300760a8201cff8298591ac138335ca3fefabcbba5183beda7256100", "69", "F", "PA"},
		{"1.2.276.0.7230010.3.1.4.8323329.4982.1517875185.837576", "f8dbded6f1206dac71e8f20f4aaf790d824cd526e34353620c115d004391355e", "56", "F", "PA"},
	} {
		path := golden.Path(t, "data/siim/dicom/"+c.uid+".dcm")
		f, err := Open(path, nil)
		require.NoError(t, err)
		img := f.Gray()
		sum := sha256.Sum256(img.Pix)
		assert.Equal(t, c.sha256, hex.EncodeToString(sum[:]))
		assert.Equal(t, [4]string{c.uid, c.age, c.sex, c.view}, [4]string{f.SOPInstanceUID, f.Age, f.Sex, f.View})
		assert.Equal(t, [2]int{1024, 1024}, [2]int{f.Rows, f.Columns})
		assert.True(t, f.RowSpacing > 0.1 && f.RowSpacing < 0.2, "%g mm", f.RowSpacing)
		assert.Len(t, f.PatientID, 36)
		assert.Equal(t, [4]string{"CR", "CHEST", "WSD", "MONOCHROME2"}, [4]string{f.Modality, f.BodyPart, f.ConversionType, f.Photometric})

		h, err := Open(path, &Options{HeaderOnly: true})
		require.NoError(t, err)
		assert.Same(t, &f.Pix8[0], &img.Pix[0], "a film of 8 bits is not touched")
		assert.Empty(t, f.Warnings)
		f.Pix8 = nil
		assert.Equal(t, f, h)
	}
}

// Why this package has its own JPEG decoder: image/jpeg is close, not equal.
func TestGoDecoderDiffers(t *testing.T) {
	b, err := os.ReadFile(golden.Path(t, "data/siim/dicom/1.2.276.0.7230010.3.1.4.8323329.10001.1517875220.930580.dcm"))
	require.NoError(t, err)
	st, err := open(b, &Options{MaxBytes: math.MaxInt64, MaxPixels: math.MaxInt})
	require.NoError(t, err)
	data, _, err := st.encapsulated(0)
	require.NoError(t, err)
	theirs, err := jpeg.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	ours, err := st.frame(0, math.MaxInt)
	require.NoError(t, err)
	worst, differ := 0, 0
	for i, v := range ours {
		r, _, _, _ := theirs.At(i%1024, i/1024).RGBA()
		if d := int(r>>8) - int(v); d != 0 {
			worst, differ = max(worst, d, -d), differ+1
		}
	}
	assert.LessOrEqual(t, worst, 2)
	t.Logf("image/jpeg differs in %d of %d pixels, by at most %d", differ, len(ours), worst)
}

func TestRegisterDecoder(t *testing.T) {
	const mine Syntax = "1.2.3.4.5"
	file := build(mine, with(mono8, pixels([][]byte{nil, {7, 7}}))...)
	var seen Frame
	RegisterDecoder(mine, func(f *Frame) ([]byte, error) {
		seen = *f
		return bytes.Clone(six), nil
	})
	f, err := Read(bytes.NewReader(file), nil)
	require.NoError(t, err)
	assert.Equal(t, six, f.Pix8)
	assert.Equal(t, Frame{Syntax: mine, Data: []byte{7, 7}, Rows: 2, Columns: 3, Samples: 1, Allocated: 8, Stored: 8}, seen)

	RegisterDecoder(mine, func(*Frame) ([]byte, error) { return nil, errors.New("odd bits") })
	_, err = Read(bytes.NewReader(file), nil)
	var format *FormatError
	require.ErrorAs(t, err, &format)
	assert.Equal(t, int64(len(file)-10), format.Offset)

	RegisterDecoder(mine, func(*Frame) ([]byte, error) { return []byte{1}, nil })
	_, err = Read(bytes.NewReader(file), nil)
	assert.ErrorContains(t, err, "returned 1 bytes, want 6")
}

func ExampleRead() {
	film := Film{
		Rows: 2, Columns: 3, Bits: 8, Pix8: []uint8{0, 10, 20, 128, 200, 255},
		SOPInstanceUID: "2.25.1", StudyUID: "2.25.2", SeriesUID: "2.25.3",
		PatientID: "P7", Sex: "F", Age: "038Y", View: "PA",
	}
	var file bytes.Buffer
	if err := Write(&file, &film, ExplicitLittleEndian); err != nil {
		fmt.Println(err)
		return
	}
	got, err := Read(&file, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	years, _ := got.AgeYears()
	fmt.Println(got.PatientID, got.Sex, years, got.View, got.Syntax.Name())
	fmt.Println(got.Gray().GrayAt(1, 0).Y, got.Gray().GrayAt(2, 1).Y)

	_, err = Read(strings.NewReader("not a DICOM file"), nil)
	fmt.Println(err)
	// Output:
	// P7 F 38 PA Explicit VR Little Endian
	// 10 255
	// dicom: at byte 16: the file has 16 bytes, a DICOM file begins with a preamble of 128 bytes and DICM
}

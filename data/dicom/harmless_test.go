package dicom

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Files with faults that do not affect the pixels are read, with warnings.
func TestHarmlessFaults(t *testing.T) {
	sound := build(ExplicitLittleEndian, sixGrey...)
	mono := func(more ...el) []byte {
		return build(ExplicitLittleEndian, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, more...), pixels(six))...)
	}
	coded := func(syntax Syntax, frame []byte, elems ...el) []byte {
		return build(syntax, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, elems...), pixels([][]byte{nil, frame}))...)
	}
	lossless := mustHex(t, tinyLossless)
	open := lossless[: len(lossless)-2 : len(lossless)-2]
	group8 := []el{{0x00080016, "UI", secondaryCapture + "\x00"}, {0x00080060, "CS", "CR"}}
	for _, c := range []struct {
		name string
		file []byte
		want []string
	}{
		{"none", sound, nil},
		{"no preamble", sound[132:], []string{"the file has no preamble; it begins with its meta information"}},
		{"a data set alone", encode(ExplicitLittleEndian, with(group8, sixGrey...)),
			[]string{"the file has neither preamble nor meta information; it is read as Explicit VR Little Endian"}},
		{"a data set alone, implicit", encode(ImplicitLittleEndian, with(group8, sixGrey...)),
			[]string{"the file has neither preamble nor meta information; it is read as Implicit VR Little Endian"}},
		{"a data set alone, big endian", encode(ExplicitBigEndian, with(group8, with(mono8, el{tagPixels, "OB", six})...)),
			[]string{"the file has neither preamble nor meta information; it is read as Explicit VR Big Endian"}},
		{"no frames", mono(el{0x00280008, "IS", "0"}), []string{"number of frames (0028,0008) is 0; it is read as 1"}},
		{"no delimiter", cut(coded(JPEGLosslessSV1, lossless), 8), []string{"the file ends without the delimiter of its pixel data"}},
		{"half a delimiter", cut(coded(RLELossless, rleFrame(six)), 3), []string{"the file ends without the delimiter of its pixel data"}},
		{"no end marker", coded(JPEGLosslessSV1, append(open, 0)), []string{"the JPEG stream ends without its end marker; its pixels are complete"}},
		{"neither", cut(coded(JPEGLosslessSV1, open), 8), []string{
			"the file ends without the delimiter of its pixel data", "the JPEG stream ends without its end marker; its pixels are complete"}},
		{"decimal commas", mono(el{0x00280030, "DS", `0,143\0,25`}),
			[]string{`pixel spacing (0028,0030) is "0,143\\0,25"; its commas are read as decimal points`}},
		{"spacing of letters", mono(el{0x00280030, "DS", "N/A"}),
			[]string{`pixel spacing (0028,0030) is "N/A", want 2 positive numbers; it is left out`}},
		{"spacing of one number", mono(el{0x00280030, "DS", "0.2"}),
			[]string{`pixel spacing (0028,0030) is "0.2", want 2 positive numbers; it is left out`}},
		{"spacing NaN", mono(el{0x00280030, "DS", `NaN\1`}),
			[]string{`pixel spacing (0028,0030) is "NaN\\1", want 2 positive numbers; it is left out`}},
		{"spacing of nothing", mono(el{0x00280030, "DS", `0\0`}),
			[]string{`pixel spacing (0028,0030) is "0\\0", want 2 positive numbers; it is left out`}},
		{"spacing of one thousand and a half", mono(el{0x00280030, "DS", `1,000.5\1`}),
			[]string{`pixel spacing (0028,0030) is "1,000.5\\1", want 2 positive numbers; it is left out`}},
		{"orientation of three numbers", mono(el{0x00200037, "DS", `1\0\0`}),
			[]string{`image orientation (0020,0037) is "1\\0\\0", want 6 numbers; it is left out`}},
		{"no position", mono(el{0x00200032, "DS", `x\0\0`}),
			[]string{`image position (0020,0032) is "x\\0\\0", want 3 numbers; it is left out`}},
		{"identifiers", mono(el{0x00080018, "UI", "../../escaped"}, el{0x0020000D, "UI", "1.02"}),
			[]string{`study instance UID (0020,000D) is "1.02", which is not a UID`, `SOP instance UID (0008,0018) is "../../escaped", which is not a UID`}},
		{"an element twice", build(ExplicitLittleEndian, with(with(group8, group8...), sixGrey...)...), []string{
			"element (0008,0016) occurs more than once", "element (0008,0060) occurs more than once"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Read(bytes.NewReader(c.file), nil)
			require.NoError(t, err)
			assert.Equal(t, six, f.Pix8)
			assert.Equal(t, c.want, f.Warnings)
		})
	}
	f, err := Read(bytes.NewReader(mono(el{0x00280030, "DS", `0,143\0,25`})), nil)
	require.NoError(t, err)
	assert.Equal(t, [2]float64{0.143, 0.25}, [2]float64{f.RowSpacing, f.ColumnSpacing})
	// If there is no spacing at the patient, that at the detector is used.
	f, err = Read(bytes.NewReader(mono(el{0x00280030, "DS", "N/A"}, el{0x00181164, "DS", `0.2\0.3`})), nil)
	require.NoError(t, err)
	assert.Equal(t, [2]float64{0.2, 0.3}, [2]float64{f.RowSpacing, f.ColumnSpacing})
	assert.Equal(t, ImagerSpacing, f.Spacing)
}

func cut(b []byte, n int) []byte { return b[:len(b)-n] }

// Every coded film without its end marker and the delimiter behind it is read
// whole; with a byte less of its data it is an error, unless the byte was padding.
func TestOpenEnds(t *testing.T) {
	for name, syntax := range map[string]Syntax{
		"grey": JPEGBaseline, "grey_restart": JPEGBaseline, "grey_progressive": JPEGProgressive,
		"ls_grey": JPEGLSLossless, "ls_flat": JPEGLSLossless, "ls_grey_near3": JPEGLSNearLossless,
	} {
		data, err := os.ReadFile(filepath.Join("..", "internal", "jpeg", "testdata", name+".jpg"))
		require.NoError(t, err)
		data = bytes.TrimRight(data, "\x00")
		file := func(data []byte) []byte {
			return build(syntax, with(sized(29, 37, mono8), pixels([][]byte{nil, data}))...)
		}
		whole, err := Read(bytes.NewReader(file(data)), nil)
		require.NoError(t, err, name)
		require.Empty(t, whole.Warnings)
		for n := range 6 {
			short := data[: len(data)-n : len(data)-n]
			f, err := Read(bytes.NewReader(cut(file(short), 8)), nil)
			if n <= 2 {
				require.NoError(t, err, "%s, %d bytes short", name, n)
				require.Len(t, f.Warnings, 1+min(n, 1), name)
			}
			if err == nil {
				require.Equal(t, whole.Pix8, f.Pix8, name)
			}
		}
	}
}

// Faults that may affect the pixels are errors.
func TestDoubts(t *testing.T) {
	var format *FormatError
	group8 := []el{{0x00080060, "CS", "CR"}}
	for name, file := range map[string][]byte{
		"a fragment cut off":             cut(build(JPEGLosslessSV1, with(mono8, pixels([][]byte{nil, mustHex(t, tinyLossless)}))...), 9),
		"coded pixels without a syntax":  encode(ExplicitLittleEndian, with(with(group8, mono8...), pixels([][]byte{nil, mustHex(t, tinyLossless)}))),
		"pixels to spare, no syntax":     encode(ExplicitLittleEndian, with(with(group8, mono8...), pixels(append(six[:6:6], 1, 2)))),
		"another end of the pixel data":  append(cut(build(RLELossless, with(mono8, pixels([][]byte{nil, rleFrame(six)}))...), 8), 1, 2, 3),
		"two modality LUT sequences":     build(ExplicitLittleEndian, with(mono8, el{0x00283000, "SQ", [][]el{{}}}, el{0x00283000, "SQ", [][]el{{}}}, pixels(six))...),
		"a deflated stream, no preamble": build(Deflated, sixGrey...)[140:],
	} {
		_, err := Read(bytes.NewReader(file), nil)
		assert.ErrorAs(t, err, &format, name)
	}
}

// Is knows what Read reads, also by the first bytes alone.
func TestIs(t *testing.T) {
	sound := build(ExplicitLittleEndian, sixGrey...)
	for name, file := range map[string][]byte{
		"whole":                    sound,
		"no preamble":              sound[132:],
		"a data set":               encode(ExplicitLittleEndian, with([]el{{0x00080060, "CS", "CR"}}, sixGrey...)),
		"a data set, implicit":     encode(ImplicitLittleEndian, with([]el{{0x00080060, "CS", "CR"}}, sixGrey...)),
		"a data set, big endian":   encode(ExplicitBigEndian, with([]el{{0x00080060, "CS", "CR"}}, sixGrey...)),
		"longer than one looks at": append(sound, make([]byte, 1000)...),
	} {
		assert.True(t, Is(file[:min(len(file), HeadBytes)]), name)
	}
	for _, other := range []string{"", "DICM", "\x89PNG\r\n\x1a\n", "ImageId,EncodedPixels\n", "\x08\x00", strings.Repeat("\x00", HeadBytes),
		"\x08\x00\x05\x00\xff\xff\xff\x7f", "\x08\x00\x00\x01CS\x02\x00CR"} {
		assert.False(t, Is([]byte(other)), "%q", other)
	}
}

func TestIsUID(t *testing.T) {
	for _, s := range []string{"1", "0.0", "1.2.840.10008.1.2", "2.25.194823961290274160312706517231943025417", strings.Repeat("1.", 31) + "12"} {
		assert.True(t, IsUID(s), s)
	}
	for _, s := range []string{"", ".", "1.", ".1", "1..2", "01", "1.00", "1.2 ", "../x", "1/2", "1.2a", "-1", "1,2", strings.Repeat("1.", 32) + "1"} {
		assert.False(t, IsUID(s), s)
	}
}

// Neither a printed film nor an error contains the identity of the patient.
func TestPrivate(t *testing.T) {
	file := build(ExplicitLittleEndian, with(imageHeader("MONOCHROME2", 1, 8, 8, 0,
		el{0x00080005, "CS", "ISO_IR 100"}, el{0x00100010, "PN", "M\xFCller^Eva"}, el{0x00100030, "DA", "19700102"}, el{0x00080090, "PN", "Weiss^R"}), pixels(six))...)
	f, err := Read(bytes.NewReader(file), nil)
	require.NoError(t, err)
	assert.Equal(t, "Müller^Eva", string(f.PatientName))
	for _, s := range []string{fmt.Sprint(f), fmt.Sprintf("%+v %#v", f, f), fmt.Sprintf("%v", *f), fmt.Sprintf("%s %q", f.PatientName, f.BirthDate)} {
		assert.NotRegexp(t, "ller|1970|Weiss", s)
	}
	for n := range file {
		if _, err := Read(bytes.NewReader(file[:n]), nil); err != nil {
			assert.NotRegexp(t, "ller|1970|Weiss", err.Error())
		}
	}
}

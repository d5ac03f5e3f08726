package dicom

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/internal/golden"
)

// allocated runs f and returns the bytes it allocated.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// allowance is what reading n bytes into film (nil for an error) may allocate.
// 256 KiB are parser and tables (a look-up table of 16 bits has 128 KiB). The
// file is held once, and once more for its entropy data or joined fragments; 16
// bytes for each of input are made for pixels before they are decoded, 32 with 12
// bits. A pixel of up to three samples of 32 bits is held in up to three forms on
// its way. What a file inflates to counts as input: inflated.
func allowance(n, inflated int, film *Film) int64 {
	a := int64(256<<10) + 40*int64(n) + 8*int64(inflated)
	if film != nil {
		a += int64(film.Rows) * int64(film.Columns) * 36
	}
	return a
}

// check reads b and fails the test if the error is of no known kind, if the
// last safeguard was needed, or if too much memory was allocated.
func check(t *testing.T, name string, b []byte, opt *Options) *Film {
	t.Helper()
	var film *Film
	var err error
	got := allocated(func() { film, err = Read(bytes.NewReader(b), opt) })
	inflated := 0
	if bytes.Contains(b, []byte(Deflated)) {
		inflated = len(b) * 1032 // deflate's limit
	}
	if most := allowance(len(b), inflated, film); got > most {
		t.Errorf("%s: %d bytes of input, %d allocated, want at most %d (%v)", name, len(b), got, most, err)
	}
	known(t, name, film, err)
	return film
}

// known fails the test if film and err are not a pair that Read documents.
func known(t *testing.T, name string, film *Film, err error) {
	t.Helper()
	var format *FormatError
	var unsupported *UnsupportedError
	switch {
	case err == nil:
		if film == nil || (film.Pix8 == nil) == (film.Pix16 == nil) || len(film.Pix8)+len(film.Pix16) != film.Rows*film.Columns {
			t.Errorf("%s: no error and no film: %+v", name, film)
		}
	case film != nil:
		t.Errorf("%s: a film beside the error %v", name, err)
	case strings.Contains(err.Error(), "makes the reader panic"):
		t.Errorf("%s: panic: %v", name, err)
	case !errors.As(err, &format) && !errors.As(err, &unsupported) && !errors.Is(err, ErrNoPixels) && !errors.Is(err, ErrLimit) && !errors.Is(err, ErrFrame):
		t.Errorf("%s: error of no known kind: %v", name, err)
	}
}

// Every file of the variety set, cut at 50 places, is an error, or a film whose
// pixels are those of the whole file. Without HCUNET_LONG each file is cut at a third of
// the places, and the next file at another third.
func TestTruncations(t *testing.T) {
	var files []string
	for _, dir := range []string{"wg04", "pydicom-testfiles", "cornerstone-ct", "suyashkumar", "malformed"} {
		f, err := filepath.Glob(filepath.Join(golden.Path(t, "data/dicom-variety"), dir, "*"))
		require.NoError(t, err)
		files = append(files, f...)
	}
	require.Len(t, files, 119)
	for i, path := range files {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		name := filepath.Base(path)
		whole := check(t, name, b, nil)
		for cut := range 50 {
			if !golden.Long() && cut%3 != i%3 {
				continue
			}
			n := len(b) * cut / 50
			if cut >= 40 {
				n = max(0, len(b)-(50-cut)*(50-cut)) // 1 to 100 bytes short
			}
			film := check(t, fmt.Sprintf("%s cut to %d", name, n), b[:n], nil)
			if film != nil {
				require.NotNil(t, whole, name)
				assert.Equal(t, whole.Pix8, film.Pix8, name)
				assert.Equal(t, whole.Pix16, film.Pix16, name)
			}
		}
	}
}

// lie returns a file whose last element claims n bytes and has eight.
func lie(vr string, tag uint32, n uint32) []byte {
	b := build(ExplicitLittleEndian, mono8...)
	b = binary.LittleEndian.AppendUint16(b, uint16(tag>>16))
	b = binary.LittleEndian.AppendUint16(b, uint16(tag))
	b = binary.LittleEndian.AppendUint32(append(b, vr[0], vr[1], 0, 0), n)
	return append(b, 1, 2, 3, 4, 5, 6, 7, 8)
}

// Small files whose headers say that they are large. Without the guard, the
// parser below this package allocates gigabytes for some and panics on others.
func TestLiars(t *testing.T) {
	tall := func(syntax Syntax, elems ...el) []byte {
		return build(syntax, append(append([]el(nil), imageHeader("MONOCHROME2", 1, 8, 8, 0)...), elems...)...)
	}
	size := func(b []byte) []byte { // 65535 rows and columns
		b = bytes.Replace(b, []byte("\x28\x00\x10\x00US\x02\x00\x02\x00"), []byte("\x28\x00\x10\x00US\x02\x00\xFF\xFF"), 1)
		return bytes.Replace(b, []byte("\x28\x00\x11\x00US\x02\x00\x03\x00"), []byte("\x28\x00\x11\x00US\x02\x00\xFF\xFF"), 1)
	}
	jpeg := mustHex(t, tinyLossless)
	for name, b := range map[string][]byte{
		"2 GiB of bytes":       lie("OB", 0x00281201, 0x7FFFFFFE),
		"4 GiB of words":       lie("OW", 0x00281201, 0xFFFFFFFE),
		"2 GiB unknown":        lie("UN", 0x00091001, 0x7FFFFFFF),
		"2 GiB of text":        lie("UT", 0x00081190, 0x7FFFFFFF),
		"2 GiB of items":       lie("SQ", 0x00283010, 0x7FFFFFFF),
		"text without end":     lie("UT", 0x00081190, undefined),
		"pixels without end":   lie("OB", tagPixels, undefined),
		"2 GiB of pixels":      lie("OW", tagPixels, 0x7FFFFFFE),
		"pixels of 65535^2":    size(tall(ExplicitLittleEndian, pixels(six))),
		"bits of 65535^2":      size(bytes.Replace(tall(ExplicitLittleEndian, pixels(six)), []byte("\x00\x01US\x02\x00\x08"), []byte("\x00\x01US\x02\x00\x01"), 1)),
		"RLE of 65535^2":       size(tall(RLELossless, pixels([][]byte{nil, rleFrame(six)}))),
		"JPEG in 65535^2":      size(tall(JPEGLosslessSV1, pixels([][]byte{nil, jpeg}))),
		"JPEG of 65535^2":      size(tall(JPEGLosslessSV1, pixels([][]byte{nil, patchSize(jpeg)}))),
		"2^31 frames":          tall(ExplicitLittleEndian, el{0x00280008, "IS", "2147483647"}, pixels(six)),
		"2^63 frames":          tall(ExplicitLittleEndian, el{0x00280008, "IS", "9223372036854775807"}, pixels(six)),
		"empty numbers":        build(ExplicitLittleEndian, el{0x00280010, "US", ""}, el{0x00280011, "US", ""}, pixels(six)),
		"deep":                 append(build(ExplicitLittleEndian), nest(100000)...),
		"black deflated pages": build(Deflated, el{0x00091001, "OB", make([]byte, 1<<20)}),
	} {
		assert.Nil(t, check(t, name, b, &Options{MaxPixels: 1 << 33}), name)
	}
}

// A stream whose frame is larger than the header says is refused by its frame
// header, in every codec.
func TestFramesAgreeWithTheHeader(t *testing.T) {
	big := func(frame []byte, marker byte) []byte { // 11585x11585, some hundred megabytes
		frame = bytes.Clone(frame)
		copy(frame[bytes.Index(frame, []byte{0xFF, marker})+5:], "\x2D\x41\x2D\x41")
		return append(frame, make([]byte, 1<<20)...) // so that its length does not contradict it
	}
	stream := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "internal", "jpeg", "testdata", name+".jpg"))
		require.NoError(t, err)
		return b
	}
	extended := stream("grey")
	at := bytes.Index(extended, []byte{0xFF, 0xC0})
	extended[at+1], extended[at+4] = 0xC1, 12
	for name, c := range map[string]struct {
		syntax    Syntax
		allocated int
		frame     []byte
	}{
		"baseline":      {JPEGBaseline, 8, big(stream("grey"), 0xC0)},
		"extended":      {JPEGExtended, 16, big(extended, 0xC1)},
		"progressive":   {JPEGProgressive, 8, big(stream("grey_progressive"), 0xC2)},
		"lossless":      {JPEGLosslessSV1, 8, big(mustHex(t, tinyLossless), 0xC3)},
		"JPEG-LS":       {JPEGLSLossless, 8, big(stream("ls_flat"), 0xF7)},
		"near-lossless": {JPEGLSNearLossless, 8, big(stream("ls_grey_near3"), 0xF7)},
		"more bits":     {JPEGLSLossless, 8, stream("ls_12bits")},
		"three samples": {JPEGBaseline, 8, stream("colour_444")},
	} {
		rows, columns := 64, 64
		if len(c.frame) < 1<<20 {
			rows, columns = 29, 37
		}
		file := build(c.syntax, with(sized(rows, columns, imageHeader("MONOCHROME2", 1, c.allocated, c.allocated, 0)), pixels([][]byte{nil, c.frame}))...)
		var err error
		got := allocated(func() { _, err = Read(bytes.NewReader(file), nil) })
		var format *FormatError
		assert.ErrorAs(t, err, &format, name)
		assert.Regexp(t, "^dicom: at byte [0-9]+: jpeg: the frame is .* bits, want (64x64|37x29) with 1 of at most (8|16) bits$", err.Error(), name)
		assert.Less(t, got, int64(len(file)+256<<10), name) // the file and tables
	}
}

// Repeated elements are kept once: the memory for a file with many elements,
// items or fragments is little more than that of its bytes.
func TestRepetitions(t *testing.T) {
	const n = 1 << 18
	many := func(e el) []byte { return bytes.Repeat(encode(ExplicitLittleEndian, []el{e}), n) }
	head := build(ExplicitLittleEndian)
	tail := encode(ExplicitLittleEndian, sixGrey)
	lut := []el{{0x00283002, "US", []uint16{3, 1, 8}}, {0x00283006, "OW", []uint16{1, 2, 200}}}
	var items [][]el
	for range n {
		items = append(items, lut)
	}
	var first []el
	for range n {
		first = append(first, lut...)
	}
	for name, c := range map[string]struct {
		file   []byte
		factor int64 // allocated for each byte
	}{
		"modality":          {slices.Concat(head, many(el{0x00080060, "CS", "CR"}), tail), 2},
		"bits":              {slices.Concat(head, many(el{0x00280100, "US", 8}), tail), 2},
		"items":             {slices.Concat(head, encode(ExplicitLittleEndian, []el{{0x00283010, "SQ", items}}), tail), 2},
		"empty items":       {slices.Concat(head, encode(ExplicitLittleEndian, []el{{0x00283010, "SQ", make([][]el, n)}}), tail), 2},
		"elements of items": {slices.Concat(head, encode(ExplicitLittleEndian, []el{{0x00283010, "SQ", [][]el{first}}}), tail), 2},
		"fragments":         {build(RLELossless, with(mono8, pixels(make([][]byte, n)))...), 4}, // where they are, 16 bytes each
	} {
		var err error
		got := allocated(func() { _, err = Read(bytes.NewReader(c.file), nil) })
		if name != "fragments" && name != "elements of items" {
			assert.NoError(t, err, name)
		}
		assert.Less(t, got, c.factor*int64(len(c.file))+512<<10, name)
	}
}

// The largest limits do not overflow.
func TestNoLimits(t *testing.T) {
	opt := &Options{MaxBytes: math.MaxInt64, MaxPixels: math.MaxInt}
	for name, b := range seeds(t) {
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b))} {
			_, err := Read(r, opt)
			assert.NoError(t, err, name)
		}
	}
}

// A deflate bomb is an error as soon as it has inflated to 32 MiB plus 200 times
// its size, even if MaxBytes is much larger, and no memory is allocated for the
// rest. A file that inflates to slightly more than 32 MiB is read.
func TestDeflatedBomb(t *testing.T) {
	if testing.Short() {
		t.Skip("inflates 100 MB")
	}
	zeros := func(n int) []byte { // deflated to a thousandth
		return build(Deflated, append(append([]el(nil), mono8...), el{0x00091001, "OB", make([]byte, n)}, pixels(six))...)
	}
	var err error
	bomb := zeros(64 << 20)
	most := int64(32<<20) + 200*int64(len(bomb))
	require.Less(t, len(bomb), 1<<17)
	got := allocated(func() { _, err = Read(bytes.NewReader(bomb), nil) })
	require.ErrorIs(t, err, ErrLimit)
	at := int64(0)
	_, scanErr := fmt.Sscanf(err.Error(), "dicom: the deflated file inflates to more than %d bytes", &at)
	require.NoError(t, scanErr, err.Error())
	require.InDelta(t, most, at, 200*1024) // the header, which is not deflated, does not count
	// A buffer that doubles as it grows has held less than twice what it ends with,
	// and ends with less than twice what it was given.
	require.Less(t, got, 4*most+1<<20)

	film, err := Read(bytes.NewReader(zeros(32<<20)), nil)
	require.NoError(t, err)
	require.Equal(t, six, film.Pix8)

	// A bomb that is cut short is an error because of its size too.
	_, err = Read(bytes.NewReader(bomb[:len(bomb)-8]), nil)
	require.ErrorIs(t, err, ErrLimit)
}

// tinyLossless is a lossless JPEG of the pixels of six, three columns by two
// rows, with one Huffman table of 17 codes of five bits and predictor 1. The
// encoder in the tests of package jpeg made it.
const tinyLossless = "ffd8ffc400240000000000110000000000000000000000000102030405060708090a0b0c0d0e0f10" +
	"ffc3000b080002000301011100ffda000801010001000043f8619f21f21b7fffd9"

func mustHex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

// patchSize sets the size in the frame header of a JPEG to 65535x65535.
func patchSize(b []byte) []byte {
	b = bytes.Clone(b)
	copy(b[bytes.Index(b, []byte{0xFF, 0xC3})+5:], "\xFF\xFF\xFF\xFF")
	return b
}

// seeds are small files of every form that this package reads.
func seeds(t testing.TB) map[string][]byte {
	var jpeg bytes.Buffer
	film := Film{Rows: 9, Columns: 10, Bits: 8, Pix8: make([]uint8, 90), SOPInstanceUID: "1", StudyUID: "2", SeriesUID: "3", PatientID: "P", RowSpacing: 1, ColumnSpacing: 2}
	for i := range film.Pix8 {
		film.Pix8[i] = uint8(i * i)
	}
	require.NoError(t, Write(&jpeg, &film, JPEGBaseline))
	coded := func(name string, syntax Syntax) []byte { // 37 columns, 29 rows
		data, err := os.ReadFile(filepath.Join("..", "internal", "jpeg", "testdata", name+".jpg"))
		require.NoError(t, err)
		elems := imageHeader("MONOCHROME2", 1, 8, 8, 0)
		elems[2].val, elems[3].val = 29, 37
		return build(syntax, append(elems, pixels([][]byte{nil, data}))...)
	}
	table := []el{{0x00283002, "US", []uint16{3, 1, 8}}, {0x00283006, "OW", []uint16{1, 2, 200}}}
	words := append(imageHeader("MONOCHROME1", 1, 16, 12, 1,
		el{0x00281050, "DS", "40"}, el{0x00281051, "DS", "400"}, el{0x00281052, "DS", "-1024"}, el{0x00281053, "DS", "2"}), pixels(sixWords))
	return map[string][]byte{
		"jpeg":     jpeg.Bytes(),
		"jpegls":   coded("ls_flat", JPEGLSLossless),
		"near":     coded("ls_grey_near3", JPEGLSNearLossless),
		"waves":    coded("grey_progressive", JPEGProgressive),
		"explicit": build(ExplicitLittleEndian, words...),
		"implicit": build(ImplicitLittleEndian, words...),
		"big":      build(ExplicitBigEndian, words...),
		"deflated": build(Deflated, words...),
		"frames":   build(ExplicitLittleEndian, append(imageHeader("RGB", 3, 8, 8, 0, el{0x00280006, "US", 1}, el{0x00280008, "IS", "2"}), pixels(make([]byte, 36)))...),
		"rle": build(RLELossless, append(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00280008, "IS", "2"}),
			pixels([][]byte{{0, 0, 0, 0, 80, 0, 0, 0}, rleFrame(six), rleFrame(six)}))...),
		"lossless": build(JPEGLosslessSV1, append(imageHeader("MONOCHROME2", 1, 8, 8, 0), pixels([][]byte{nil, mustHex(t, tinyLossless)}))...),
		"luts": build(ImplicitLittleEndian, append(imageHeader("MONOCHROME2", 1, 8, 8, 0,
			el{0x00283000, "SQ", [][]el{table}}, el{0x00283010, "SQ", [][]el{table, table}}), pixels(six))...),
		"palette": build(ExplicitLittleEndian, append(imageHeader("PALETTE COLOR", 1, 8, 8, 0,
			el{0x00281101, "US", []uint16{3, 10, 8}}, el{0x00281102, "US", []uint16{3, 10, 8}}, el{0x00281103, "US", []uint16{3, 10, 8}},
			el{0x00281201, "OW", []uint16{255, 0, 0}}, el{0x00281202, "OW", []uint16{0, 255, 0}}, el{0x00281203, "OW", []uint16{0, 0, 255}}), pixels(six))...),
		"bare":   encode(ImplicitLittleEndian, with([]el{{0x00080060, "CS", "CR"}}, sixGrey...)),
		"meta":   build(ExplicitLittleEndian, sixGrey...)[132:],
		"faults": cut(build(JPEGLosslessSV1, with(imageHeader("MONOCHROME2", 1, 8, 8, 0, el{0x00280008, "IS", "0"}, el{0x00280030, "DS", `0,143\N/A`}, el{0x00280120, "US", 1}), pixels([][]byte{nil, cut(mustHex(t, tinyLossless), 2)}))...), 8),
		"bits":   build(ExplicitBigEndian, append(imageHeader("MONOCHROME2", 1, 1, 1, 0), pixels([]byte{0x2D, 0}))...),
		"422":    build(ExplicitLittleEndian, append(imageHeader("YBR_FULL_422", 3, 8, 8, 0), pixels(make([]byte, 12)))...),
	}
}

// The seeds lie in testdata/fuzz, where go test -fuzz finds them with what it
// found itself; -update rewrites them.
func TestSeeds(t *testing.T) {
	update := flag.Lookup("update").Value.String() == "true"
	for name, b := range seeds(t) {
		path := filepath.Join("testdata", "fuzz", "FuzzRead", "seed-"+name)
		entry := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\nbool(true)\n", b)
		if update {
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(entry), 0o644))
		}
		have, err := os.ReadFile(path)
		require.NoError(t, err, "run with -update")
		assert.Equal(t, entry, string(have), "%s is out of date: run with -update", path)
		assert.NotNil(t, check(t, name, b, nil), name)
	}
}

func FuzzRead(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, voi bool) {
		opt := &Options{ApplyVOI: voi, MaxBytes: 1 << 20, MaxPixels: 1 << 16}
		film, err := Read(bytes.NewReader(b), opt)
		known(t, "fuzz", film, err)
		if err != nil {
			return
		}
		film.Gray16()
		film.Levels()
		film.AgeYears()
		if film.Levels() == 0 || len(film.Warnings) > maxWarnings {
			t.Fatalf("%d levels, %d warnings", film.Levels(), len(film.Warnings))
		}
	})
}

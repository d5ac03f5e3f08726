package dicom

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/data/internal/jpegtest"
)

// sized returns an image header of other rows and columns.
func sized(rows, columns int, elems []el) []el {
	elems = with(elems)
	elems[2].val, elems[3].val = rows, columns
	return elems
}

// dim is a film of 20x14 pixels, 0 to 278 of 16 bits, the last value twice: as a
// picture of 8 bits it has all 256 levels if it is shown from its least to its
// greatest value, and two if by its bits.
func dim() (pix []uint16, levels []uint8) {
	for i := range 280 {
		v := min(i, 278)
		pix = append(pix, uint16(v))
		levels = append(levels, uint8((v*255+139)/278))
	}
	return pix, levels
}

// A film that uses a small part of its range gives the same picture in every
// format.
func TestDimFilms(t *testing.T) {
	pix, levels := dim()
	planes := [2][]byte{}
	for _, v := range pix {
		planes[0], planes[1] = append(planes[0], byte(v>>8)), append(planes[1], byte(v))
	}
	runs := make([]byte, 64) // RLE Lossless: literal runs of 128 at most
	runs[0] = 2
	for i, p := range planes {
		binary.LittleEndian.PutUint32(runs[4+4*i:], uint32(len(runs)))
		for ; len(p) > 0; p = p[min(128, len(p)):] {
			runs = append(append(runs, byte(min(128, len(p))-1)), p[:min(128, len(p))]...)
		}
		runs = append(runs, make([]byte, len(runs)%2)...)
	}
	lossless := func(predictor int) []byte { return jpegtest.Lossless(pix, 20, 14, 1, 16, predictor, 0, 0) }
	for _, c := range []struct {
		name   string
		syntax Syntax
		pixels any
	}{
		{"explicit", ExplicitLittleEndian, pix},
		{"implicit", ImplicitLittleEndian, pix},
		{"big endian", ExplicitBigEndian, pix},
		{"deflated", Deflated, pix},
		{"RLE", RLELossless, [][]byte{nil, runs}},
		{"lossless JPEG", JPEGLosslessSV1, [][]byte{nil, lossless(1)}},
		{"lossless JPEG, predictor 6", JPEGLossless, [][]byte{nil, lossless(6)}},
	} {
		f, err := Read(bytes.NewReader(build(c.syntax, with(sized(14, 20, imageHeader("MONOCHROME2", 1, 16, 16, 0)), pixels(c.pixels))...)), nil)
		require.NoError(t, err, c.name)
		assert.Equal(t, pix, f.Pix16, c.name)
		assert.Equal(t, [3]int{16, 0, 278}, [3]int{f.Bits, int(f.Black), int(f.White)}, c.name)
		assert.Equal(t, levels, f.Gray().Pix, c.name)
		assert.Equal(t, 256, f.Levels(), c.name)
		deep := f.Gray16()
		assert.Equal(t, [3]uint8{0, 255, 255}, [3]uint8{deep.Pix[0], deep.Pix[2*278], deep.Pix[2*278+1]}, c.name)
	}
}

// The DCT and JPEG-LS streams of the decoder's own tests, in 16 bits.
func TestDimStreams(t *testing.T) {
	for name, c := range map[string]struct {
		syntax Syntax
		was    int // levels by 16 bits, at most
	}{
		"sequential":  {JPEGExtended, 18}, // 256 of 4096 values in the middle
		"progressive": {JPEGProgressive, 18},
		"ls_12bits":   {JPEGLSLossless, 17}, // 4096 of 65536
	} {
		file := map[string]string{"sequential": "grey", "progressive": "grey_progressive"}[name]
		if file == "" {
			file = name
		}
		data, err := os.ReadFile(filepath.Join("..", "internal", "jpeg", "testdata", file+".jpg"))
		require.NoError(t, err)
		for from, to := range map[byte]byte{0xC0: 0xC1, 0xC2: 0xC2} { // the same coefficients with 12 bits
			if at := bytes.Index(data, []byte{0xFF, from, 0, 11, 8}); at > 0 {
				data[at+1], data[at+4] = to, 12
			}
		}
		f, err := Read(bytes.NewReader(build(c.syntax, with(sized(29, 37, imageHeader("MONOCHROME2", 1, 16, 16, 0)), pixels([][]byte{nil, data}))...)), nil)
		require.NoError(t, err, name)
		assert.Greater(t, f.Levels(), 100, name)
		f.Black, f.White = 0, 65535
		assert.LessOrEqual(t, f.Levels(), c.was, name)
	}
}

func TestLevels(t *testing.T) {
	little := make([]uint16, 280) // a CT's values: -1000 to 395 of 16 bits
	for i := range little {
		little[i] = uint16(int16(5*i - 1000))
	}
	table := make([]uint16, 256) // a modality LUT of 16 bits with 1000 to 1510
	for i := range table {
		table[i] = uint16(1000 + 2*i)
	}
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i)
		}
		return b
	}
	lut := el{0x00283000, "SQ", [][]el{{{0x00283002, "US", []uint16{256, 0, 16}}, {0x00283006, "OW", table}}}}
	padded := append([]uint16{0xF830, 0xF831}, little[2:]...) // -2000 and -1999
	pad := []el{{0x00280120, "SS", []uint16{0xF830}}, {0x00280121, "SS", []uint16{0xF831}}}
	edged := slices.Clone(little) // with a border and a marker that nothing declares
	edged[0], edged[1], edged[279] = 0xE000, 0xE003, 0x7FFF
	halves := slices.Clone(little) // two pictures far from one another
	for i := range 140 {
		halves[i] += 0x9000
	}
	window := []el{{0x00281050, "DS", "-500"}, {0x00281051, "DS", "1000"}}
	ct := func(more ...el) []el { return sized(14, 20, imageHeader("MONOCHROME2", 1, 16, 16, 1, more...)) }
	for _, c := range []struct {
		name         string
		elems        []el
		opt          *Options
		levels       int
		black, white int
		first, last  uint8 // of Gray
	}{
		{"CT", with(ct(), pixels(little)), nil, 256, 32768 - 1000, 32768 + 395, 0, 255},
		{"CT inverted", with(sized(14, 20, imageHeader("MONOCHROME1", 1, 16, 16, 1)), pixels(little)), nil, 256, 32767 - 395, 32767 + 1000, 255, 0},
		{"CT with padding", with(ct(pad...), pixels(padded)), nil, 256, 32768 - 990, 32768 + 395, 0, 255},
		{"CT with a border and a marker", with(ct(), pixels(edged)), nil, 256, 32768 - 990, 32768 + 390, 0, 255},
		{"CT of two pictures", with(ct(), pixels(halves)), nil, 14, 0x9000 + 0x8000 - 1000 - 0x10000, 32768 + 395, 0, 255},
		{"CT, its window not asked for", with(ct(window...), pixels(little)), nil, 256, 32768 - 1000, 32768 + 395, 0, 255},
		// C-0.5-(W-1)/2 = -1000 is black and from 0 on it is white: 200 values of 5 between.
		{"CT in its window", with(ct(window...), pixels(little)), &Options{ApplyVOI: true}, 201, 0, 65535, 0, 255},
		{"padding alone", with(ct(el{0x00280120, "SS", []uint16{7}}), pixels(bytes.Repeat([]byte{7, 0}, 280))), nil, 1, 0, 65535, 128, 128},
		{"CR with a modality LUT", with(sized(16, 16, imageHeader("MONOCHROME2", 1, 8, 8, 0, lut)), pixels(bytesOf(256))),
			&Options{ApplyModality: true}, 256, 1000, 1510, 0, 255},
		{"8 bits stay as they are", sixGrey, nil, 6, 0, 255, 0, 255},
		{"8 dim bits stay as they are", with(mono8, pixels([]byte{9, 9, 9, 10, 11, 12})), nil, 4, 0, 255, 9, 12},
		{"12 full bits stay as they are", with(imageHeader("MONOCHROME2", 1, 16, 12, 0), pixels(sixWords)), nil, 5, 0, 4095, 0, 255},
		{"dim colour of 16 bits", with(imageHeader("RGB", 3, 16, 16, 0), pixels([]uint16{0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5})), nil, 6, 0, 5, 0, 255},
	} {
		f, err := Read(bytes.NewReader(build(ExplicitLittleEndian, c.elems...)), c.opt)
		require.NoError(t, err, c.name)
		assert.Equal(t, c.levels, f.Levels(), c.name)
		assert.Equal(t, [2]int{c.black, c.white}, [2]int{int(f.Black), int(f.White)}, c.name)
		pix := f.Gray().Pix
		assert.Equal(t, [2]uint8{c.first, c.last}, [2]uint8{pix[0], pix[len(pix)-1]}, c.name)
	}
}

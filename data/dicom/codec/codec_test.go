//go:build dicomcodec

package codec

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/data/dicom"
)

// siz returns the head of a JPEG 2000 code stream: the start marker and a SIZ
// segment for one component of 8 bits.
func siz(w, h, tileW, tileH uint32) []byte {
	b := []byte{0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0}
	for _, v := range []uint32{w, h, 0, 0, tileW, tileH, 0, 0} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return append(b, 0, 1, 7, 1, 1)
}

func frame(s dicom.Syntax, data []byte) *dicom.Frame {
	return &dicom.Frame{Syntax: s, Data: data, Rows: 2, Columns: 3, Samples: 1, Allocated: 8, Stored: 8}
}

func TestRefusesWhatTheHeaderContradicts(t *testing.T) {
	for want, data := range map[string][]byte{
		"no code stream":                         []byte("none"),
		"the image is 4x2, the header says 3x2":  siz(4, 2, 4, 4),
		"tiles of 0x4":                           siz(3, 2, 0, 4),
		"3x2 tiles in 45 bytes":                  siz(3, 2, 1, 1),
		"the image is 3x70000, the header says ": siz(3, 70000, 4, 4),
	} {
		_, err := jpeg2000(frame(dicom.JPEG2000, data))
		assert.ErrorContains(t, err, want)
	}
	deep, wide := siz(3, 2, 4, 4), siz(3, 2, 4, 4)
	deep[42], wide[43] = 8, 2
	_, err := jpeg2000(frame(dicom.JPEG2000, deep))
	assert.ErrorContains(t, err, "component 0 has 9 bits")
	_, err = jpeg2000(frame(dicom.JPEG2000, wide))
	assert.ErrorContains(t, err, "in steps of 2x1")
	_, err = jpeg2000(frame(dicom.JPEG2000, append(siz(3, 2, 4, 4), make([]byte, 40)...)))
	assert.Error(t, err, "no coding style")
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return b
}

// testdata/make.py made the stream.
func TestRamp(t *testing.T) {
	require.True(t, Enabled)
	f := &dicom.Frame{Data: read(t, "ramp.j2k"), Rows: 32, Columns: 40, Samples: 1, Allocated: 16, Stored: 8}
	pix, err := jpeg2000(f)
	require.NoError(t, err)
	require.Len(t, pix, 2*32*40)
	for i := range 32 * 40 {
		require.Equal(t, uint16(3*(i%40)+5*(i/40))&255, binary.LittleEndian.Uint16(pix[2*i:]), "pixel %d", i)
	}
	f.Rows = 31
	_, err = jpeg2000(f)
	assert.ErrorContains(t, err, "the image is 40x32")
}

// A DICOM file of the ramp, 8 bits in 16, shows all levels of the ramp.
func TestDimFilm(t *testing.T) {
	var b []byte
	add := func(group, element uint16, vr string, val []byte) {
		b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, group), element)
		b = append(b, vr...)
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(val))), val...)
	}
	b = append(make([]byte, 128), "DICM"...)
	add(2, 0x10, "UI", []byte(dicom.JPEG2000Lossless))
	for element, v := range map[uint16]uint16{2: 1, 0x10: 32, 0x11: 40, 0x100: 16, 0x101: 16, 0x102: 15, 0x103: 0} {
		add(0x28, element, "US", binary.LittleEndian.AppendUint16(nil, v))
	}
	stream := read(t, "ramp.j2k")
	b = append(b, "\xE0\x7F\x10\x00OB\x00\x00\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\x00\x00\x00\x00\xFE\xFF\x00\xE0"...)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(stream))), stream...)
	film, err := dicom.Read(bytes.NewReader(b), nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"the file ends without the delimiter of its pixel data"}, film.Warnings)
	seen := map[int]bool{}
	for i := range 32 * 40 {
		seen[(3*(i%40)+5*(i/40))&255] = true
	}
	assert.Equal(t, len(seen), film.Levels())
}

// A stream cut anywhere is an error or an image, and never the end of the
// process.
func TestBrokenStreams(t *testing.T) {
	whole := read(t, "ramp.j2k")
	for n := range len(whole) - 1 {
		f := &dicom.Frame{Data: whole[:n], Rows: 32, Columns: 40, Samples: 1, Allocated: 8, Stored: 8}
		if pix, err := jpeg2000(f); err == nil {
			assert.Len(t, pix, 32*40)
		} else {
			assert.Nil(t, pix)
		}
	}
}

//go:build dicomcodec

package codec

import (
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
	_, err := jpeg2000(frame(dicom.JPEG2000, append(siz(3, 2, 4, 4), make([]byte, 40)...)))
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

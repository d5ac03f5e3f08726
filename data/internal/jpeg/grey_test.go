package jpeg

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/data/internal/jpegtest"
)

const jfifBytes = 18 // of the marker segment that Pillow writes behind the start

// withoutJFIF returns src with another segment in place of its JFIF marker.
func withoutJFIF(src []byte, instead string) []byte {
	return append(append(bytes.Clone(src[:2]), instead...), src[2+jfifBytes:]...)
}

// renamed returns src with other names for its three components.
func renamed(src []byte, names string) []byte {
	src = bytes.Clone(src)
	frame, scan := bytes.Index(src, []byte{0xFF, sof0}), bytes.Index(src, []byte{0xFF, sos})
	for i := range 3 {
		src[frame+10+3*i], src[scan+5+2*i] = names[i], names[i]
	}
	return src
}

// The hashes are of cv2.imdecode(file, 0) of OpenCV 4.6.0 on libjpeg-turbo 2.1.5,
// by testdata/make.py.
func TestDecodeGrey(t *testing.T) {
	colour := read(t, "colour_444")
	const adobeRGB = "\xFF\xEE\x00\x0EAdobe\x00\x64\x00\x00\x00\x00\x00"
	const luma = "af018222f5f136bc8a8d4fbb21e058300069db8000805f86b12c8a656df9c1a5"
	const ofRGB = "ead815c030d270f2ef1e221d96fbb17503319bf0277506975c6152b6c79bb762"
	for _, c := range []struct {
		name   string
		src    []byte
		sha256 string
	}{
		{"grey", read(t, "grey"), "649fce038f49aa7a401be9f9f29476c73744b96a5ed0ae8043ada89dc9dfa1d8"},
		{"progressive", read(t, "grey_progressive"), "70ee258fd0276454e45c0675c61f9defdccab350d14a192de137ee9cb6f46d9c"},
		{"4:4:4", colour, luma},
		{"4:2:2", read(t, "colour_422"), luma},
		{"4:2:0", read(t, "colour_420"), luma},
		{"4:2:0 progressive", read(t, "colour_420_progressive"), "e8f30134886fb76a381993ae2d089f8675672b5a36ce7db238f573e2b6da5b8c"},
		{"RGB by an Adobe marker", withoutJFIF(colour, adobeRGB), ofRGB},
		{"RGB by the names", withoutJFIF(renamed(colour, "RGB"), ""), ofRGB},
		{"RGB by the names, but JFIF", renamed(colour, "RGB"), luma},
	} {
		t.Run(c.name, func(t *testing.T) {
			img, err := DecodeGrey(c.src, Limits{})
			require.NoError(t, err)
			require.Equal(t, [3]int{37, 29, 1}, [3]int{img.Width, img.Height, img.Components})
			require.Len(t, img.Pix8, 37*29)
			sum := sha256.Sum256(img.Pix8)
			assert.Equal(t, c.sha256, hex.EncodeToString(sum[:]))
		})
	}
}

// Luma that is itself the smaller component is brought to full size: the frame
// header names it first, the scan second.
func TestDecodeGreySmallLuma(t *testing.T) {
	for _, name := range []string{"colour_420", "colour_422"} {
		src := bytes.Clone(read(t, name))
		c := src[bytes.Index(src, []byte{0xFF, sof0})+10:]
		for i := range 3 {
			c[i], c[3+i] = c[3+i], c[i]
		}
		whole, err := Decode(src, Limits{})
		require.NoError(t, err)
		grey, err := DecodeGrey(src, Limits{})
		require.NoError(t, err)
		require.Len(t, grey.Pix8, 37*29)
		for i, v := range grey.Pix8 {
			require.Equal(t, whole.Pix8[3*i], v, "%s: pixel %d", name, i)
		}
	}
}

func TestDecodeGreyErrors(t *testing.T) {
	grey, colour := read(t, "grey"), read(t, "colour_420_progressive")
	for _, src := range [][]byte{
		patch(bytes.Replace(grey, []byte{0xFF, sof0}, []byte{0xFF, sof1}, 1), sof1, 0, 12),
		read(t, "ls_planes"),
		jpegtest.Lossless(make([]uint16, 35), 7, 5, 1, 8, 4, 0, 2),
	} {
		_, err := DecodeGrey(src, Limits{})
		var unsupported UnsupportedError
		require.True(t, errors.As(err, &unsupported), "%v", err)
		require.ErrorContains(t, err, "grey from")
	}
	_, err := DecodeGrey(grey, Limits{Pixels: 37*29 - 1})
	var limit *LimitError
	require.True(t, errors.As(err, &limit), "%v", err)
	// Chroma is checked although it is not needed.
	for n := range colour {
		_, err := DecodeGrey(colour[:n], Limits{})
		var format *FormatError
		require.True(t, errors.As(err, &format), "cut to %d: %v", n, err)
	}
}

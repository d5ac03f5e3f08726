// Package sketch draws small pictures for the tests of this module.
package sketch

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Plain returns a w x h image whose pixels depend on place and seed. All values
// are below 255.
func Plain(w, h, seed int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = uint8((i*7 + i/w*13 + seed*29) % 251)
	}
	return img
}

// Box returns a w x h mask that is 255 in the given box.
func Box(w, h int, box image.Rectangle) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, w, h))
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			m.Pix[y*w+x] = 255
		}
	}
	return m
}

// WritePNG writes a PNG file, makes the folders above it, and returns its path.
func WritePNG(t testing.TB, img image.Image, path ...string) string {
	t.Helper()
	p := filepath.Join(path...)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o777))
	f, err := os.Create(p)
	require.NoError(t, err)
	require.NoError(t, png.Encode(f, img))
	require.NoError(t, f.Close())
	return p
}

// WriteText writes a text file, makes the folders above it, and returns its
// path.
func WriteText(t testing.TB, text string, path ...string) string {
	t.Helper()
	p := filepath.Join(path...)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o777))
	require.NoError(t, os.WriteFile(p, []byte(text), 0o666))
	return p
}

// EncodePNG returns img as a PNG file.
func EncodePNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, img))
	return b.Bytes()
}

// EXIF returns a TIFF block with an orientation among other tags.
func EXIF(order binary.AppendByteOrder, orientation int) []byte {
	b := []byte("II*\x00")
	if order == binary.AppendByteOrder(binary.BigEndian) {
		b = []byte("MM\x00*")
	}
	b = order.AppendUint32(b, 8)
	b = order.AppendUint16(b, 2)
	b = append(order.AppendUint32(order.AppendUint16(order.AppendUint16(b, 0x0100), 4), 1), 0, 0, 0, 9) // ImageWidth, a LONG
	b = order.AppendUint32(order.AppendUint16(order.AppendUint16(b, 0x0112), 3), 1)
	b = order.AppendUint16(b, uint16(orientation))
	return append(b, 0, 0, 0, 0, 0, 0)
}

// WithEXIF returns img as a file of the given kind, "jpeg" or "png", that
// contains the TIFF block.
func WithEXIF(t testing.TB, img image.Image, kind string, tiff []byte) []byte {
	if kind == "jpeg" {
		var b bytes.Buffer
		require.NoError(t, jpeg.Encode(&b, img, &jpeg.Options{Quality: 100}))
		app1 := append([]byte("\xff\xe1\x00\x00Exif\x00\x00"), tiff...)
		binary.BigEndian.PutUint16(app1[2:], uint16(len(app1)-2))
		return append(append([]byte("\xff\xd8\xff\xe0\x00\x04xx"), app1...), b.Bytes()[2:]...)
	}
	b := EncodePNG(t, img)
	chunk := append([]byte("eXIf"), tiff...)
	out := append([]byte{}, b[:33]...) // signature and IHDR
	out = binary.BigEndian.AppendUint32(out, uint32(len(tiff)))
	out = append(out, chunk...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(chunk))
	return append(out, b[33:]...)
}

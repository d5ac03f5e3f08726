package picture

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"testing"

	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/stretchr/testify/require"
)

// BenchmarkReadGrayJPEG reads a grey and a coloured picture of 1024x1024 pixels,
// both full of edges, which makes JPEG slow;
// "standard library" is image/jpeg alone.
func BenchmarkReadGrayJPEG(b *testing.B) {
	r := image.Rect(0, 0, 1024, 1024)
	grey, colour := sketch.Plain(1024, 1024, 1), image.NewYCbCr(r, image.YCbCrSubsampleRatio420)
	copy(colour.Y, grey.Pix)
	for i := range colour.Cb {
		colour.Cb[i], colour.Cr[i] = uint8(i/512), uint8(i)
	}
	for name, img := range map[string]image.Image{"grey": grey, "colour": colour} {
		var file bytes.Buffer
		require.NoError(b, jpeg.Encode(&file, img, &jpeg.Options{Quality: 90}))
		for decoder, read := range map[string]func() error{
			"ReadGray":         func() error { _, err := ReadGray(bytes.NewReader(file.Bytes()), nil); return err },
			"standard library": func() error { _, err := jpeg.Decode(bytes.NewReader(file.Bytes())); return err },
		} {
			b.Run(fmt.Sprintf("%s/%s", name, decoder), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := read(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

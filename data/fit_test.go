package data

import (
	"bytes"
	"image"
	"testing"

	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/stretchr/testify/require"
)

func TestFit(t *testing.T) {
	wide := image.NewGray(image.Rect(0, 0, 4, 2))
	for i := range wide.Pix {
		wide.Pix[i] = 200
	}
	got, err := FitImage(wide, 4, 4, Pad)
	require.NoError(t, err)
	require.Equal(t, []uint8{0, 0, 0, 0, 200, 200, 200, 200, 200, 200, 200, 200, 0, 0, 0, 0}, got.Pix)
	got, err = FitImage(wide, 4, 4, Stretch)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{200}, 16), got.Pix)

	// An odd remainder goes below and to the right.
	tall := image.NewGray(image.Rect(0, 0, 2, 5))
	copy(tall.Pix, bytes.Repeat([]byte{9}, 10))
	got, err = FitImage(tall, 5, 5, Pad)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{0, 9, 9, 0, 0}, 5), got.Pix)

	// Image and mask stay together: a mask drawn where the image is bright.
	for _, fit := range []Fit{Stretch, Pad} {
		for _, s := range []image.Point{{100, 60}, {60, 100}, {97, 97}, {33, 200}} {
			img, mask := sketch.Plain(s.X, s.Y, 0), sketch.Box(s.X, s.Y, image.Rect(s.X/2, s.Y/4, s.X*3/4, s.Y/2))
			for i, v := range mask.Pix {
				img.Pix[i] = img.Pix[i]/4 + v/4*3
			}
			a, err := FitImage(img, 64, 64, fit)
			require.NoError(t, err)
			b, err := FitMask(mask, 64, 64, fit, Nearest)
			require.NoError(t, err)
			for i, v := range b.Pix {
				require.Contains(t, []uint8{0, 255}, v)
				// The border may lie a pixel off where the one blends and the other does not.
				if x, y := i%64, i/64; v == 255 && x > 0 && y > 0 && x < 63 && y < 63 &&
					b.Pix[i-1]&b.Pix[i+1]&b.Pix[i-64]&b.Pix[i+64] == 255 {
					require.Greater(t, a.Pix[i], uint8(150), "%v %v at %d, %d", fit, s, x, y)
				}
			}
		}
	}
	for _, f := range []func() error{
		func() error { _, err := FitImage(wide, 0, 4, Pad); return err },
		func() error { _, err := FitImage(&image.Gray{}, 4, 4, Stretch); return err },
		func() error { _, err := FitMask(&image.Gray{}, 4, 4, Stretch, Linear); return err },
		func() error { _, err := FitMask(wide, 4, -1, Pad, Nearest); return err },
	} {
		require.ErrorContains(t, f(), "cannot bring")
	}
}

func TestBinarize(t *testing.T) {
	for _, c := range []struct{ in, want []uint8 }{
		{[]uint8{0, 255, 0}, []uint8{0, 255, 0}},
		{[]uint8{0, 1, 0}, []uint8{0, 255, 0}},
		{[]uint8{0, 100, 0}, []uint8{0, 255, 0}},
		{[]uint8{0, 127, 128, 255}, []uint8{0, 0, 255, 255}},
		{[]uint8{0, 0}, []uint8{0, 0}},
		{[]uint8{255, 255}, []uint8{255, 255}},
	} {
		m := &image.Gray{Pix: bytes.Clone(c.in)}
		binarize(m)
		require.Equal(t, c.want, m.Pix)
	}
}

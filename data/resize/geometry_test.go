package resize

import (
	"bytes"
	"image"
	"testing"

	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/stretchr/testify/require"
)

func fit(film *image.Gray, w, h int, f Fit) Geometry {
	return Geometry{film.Rect.Dx(), film.Rect.Dy(), w, h, f}
}

func TestFit(t *testing.T) {
	wide := image.NewGray(image.Rect(0, 0, 4, 2))
	for i := range wide.Pix {
		wide.Pix[i] = 200
	}
	got, err := fit(wide, 4, 4, Pad).Image(wide)
	require.NoError(t, err)
	require.Equal(t, []uint8{0, 0, 0, 0, 200, 200, 200, 200, 200, 200, 200, 200, 0, 0, 0, 0}, got.Pix)
	got, err = fit(wide, 4, 4, Stretch).Image(wide)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{200}, 16), got.Pix)

	// An odd remainder goes below and to the right.
	tall := image.NewGray(image.Rect(0, 0, 2, 5))
	copy(tall.Pix, bytes.Repeat([]byte{9}, 10))
	got, err = fit(tall, 5, 5, Pad).Image(tall)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{0, 9, 9, 0, 0}, 5), got.Pix)

	// Image and mask stay together: a mask drawn where the image is bright.
	for _, f := range []Fit{Stretch, Pad} {
		for _, s := range []image.Point{{100, 60}, {60, 100}, {97, 97}, {33, 200}} {
			img, mask := sketch.Plain(s.X, s.Y, 0), sketch.Box(s.X, s.Y, image.Rect(s.X/2, s.Y/4, s.X*3/4, s.Y/2))
			for i, v := range mask.Pix {
				img.Pix[i] = img.Pix[i]/4 + v/4*3
			}
			a, err := fit(img, 64, 64, f).Image(img)
			require.NoError(t, err)
			b, err := fit(mask, 64, 64, f).Mask(mask, MaskNearest)
			require.NoError(t, err)
			for i, v := range b.Pix {
				require.Contains(t, []uint8{0, 255}, v)
				// The border may differ by a pixel, because the image is blended and the mask
				// is not.
				if x, y := i%64, i/64; v == 255 && x > 0 && y > 0 && x < 63 && y < 63 &&
					b.Pix[i-1]&b.Pix[i+1]&b.Pix[i-64]&b.Pix[i+64] == 255 {
					require.Greater(t, a.Pix[i], uint8(150), "%v %v at %d, %d", f, s, x, y)
				}
			}
		}
	}
	for _, f := range []func() error{
		func() error { _, err := fit(wide, 0, 4, Pad).Image(wide); return err },
		func() error { _, err := fit(&image.Gray{}, 4, 4, Stretch).Image(&image.Gray{}); return err },
		func() error { _, err := fit(&image.Gray{}, 4, 4, Stretch).Mask(&image.Gray{}, MaskLinear); return err },
		func() error { _, err := fit(wide, 4, -1, Pad).Mask(wide, MaskNearest); return err },
	} {
		require.ErrorContains(t, f(), "cannot bring")
	}
}

// Back and then Mask give the same mask again, except on the padding: for every
// pixel whose centre lies on the film.
func TestBackAndForth(t *testing.T) {
	const w, h = 24, 16
	mask := image.NewGray(image.Rect(0, 0, w, h))
	for i := range mask.Pix {
		mask.Pix[i] = uint8(1 + (i*i*7+i/w*13)%254) // any class, so that no two neighbours are the same
	}
	for _, f := range []Fit{Stretch, Pad} {
		for fw := w; fw < 3*w; fw += 5 {
			for fh := h; fh < 5*h; fh += 3 {
				g := Geometry{fw, fh, w, h, f}
				film, err := g.Back(mask)
				require.NoError(t, err)
				require.Equal(t, image.Rect(0, 0, fw, fh), film.Rect)
				again, err := g.Mask(film, MaskNearest)
				require.NoError(t, err)
				pw, ph, left, top := g.padded()
				xs, ys := nearest(pw, w), nearest(ph, h)
				inside := 0
				for i, v := range again.Pix {
					x, y := xs[i%w]-left, ys[i/w]-top
					if x < 0 || y < 0 || x >= fw || y >= fh {
						require.Zero(t, v, "%+v", g)
						continue
					}
					inside++
					require.Equal(t, mask.Pix[i], v, "%+v: %d, %d", g, i%w, i/w)
				}
				if f == Stretch {
					require.Equal(t, w*h, inside)
				}
				require.Greater(t, inside, w*h/5)
			}
		}
	}

	// Drawn by hand: a film twice as wide as high, padded above and below.
	film, err := Geometry{8, 4, 4, 4, Pad}.Back(draw("####", "#...", "...#", "####"))
	require.NoError(t, err)
	require.Equal(t, draw("##......", "##......", "......##", "......##"), film)
}

func TestGeometryErrors(t *testing.T) {
	img := sketch.Plain(8, 4, 1)
	short := &image.Gray{Pix: img.Pix[:31], Stride: 8, Rect: img.Rect}
	thin := sketch.Plain(1, 1<<16, 1)
	for want, err := range map[string]error{
		"wanted 9x4":   errorOf(Geometry{9, 4, 3, 3, Pad}.Image(img)),
		"wanted 8x5":   errorOf(Geometry{8, 5, 3, 3, Pad}.Mask(img, MaskNearest)),
		"wanted 3x3":   errorOf(Geometry{8, 4, 3, 3, Pad}.Back(img)),
		"31 values":    errorOf(Geometry{8, 4, 3, 3, Pad}.Image(short)),
		"fit 2":        Geometry{8, 4, 3, 3, 2}.Check(),
		"padding":      errorOf(Geometry{1, 1 << 16, 3, 3, Pad}.Image(thin)),
		"sides of 1":   Geometry{8, 4, 1 << 28, 3, Stretch}.Check(),
		"has 5 values": errorOf(Geometry{8, 4, 3, 3, Stretch}.Image16(make([]uint16, 5))),
	} {
		require.ErrorContains(t, err, want)
	}
	for _, f := range []func(*image.Gray, int, int) (*image.Gray, error){Linear, Mask, Nearest} {
		require.ErrorContains(t, errorOf(f(short, 2, 2)), "has 31 values")
		require.ErrorContains(t, errorOf(f(&image.Gray{Stride: 8, Rect: img.Rect}, 2, 2)), "has 0 values")
		require.ErrorContains(t, errorOf(f(&image.Gray{Pix: img.Pix, Rect: img.Rect}, 2, 2)), "0 from row to row")
	}
}

func errorOf[T any](_ T, err error) error { return err }

// With 257 times the values, 16 bits give 257 times the bytes, up to the rounding of
// the bytes (half a level) and of their 11-bit weights (255 levels times twice 2^-12
// for each of two passes).
func TestLinear16(t *testing.T) {
	film := sketch.Plain(37, 29, 3)
	deep := make([]uint16, len(film.Pix))
	for i, v := range film.Pix {
		deep[i] = 257 * uint16(v)
	}
	for _, f := range []Fit{Stretch, Pad} {
		g := Geometry{37, 29, 16, 20, f}
		want, err := g.Image(film)
		require.NoError(t, err)
		got, err := g.Image16(deep)
		require.NoError(t, err)
		for i, v := range want.Pix {
			require.InDelta(t, float64(v), float64(got[i])/257, 0.5+4*255.0/4096+0.25)
		}
	}
	same, err := Geometry{37, 29, 37, 29, Stretch}.Image16(deep)
	require.NoError(t, err)
	require.Equal(t, deep, same)
}

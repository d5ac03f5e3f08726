package resize

import (
	"fmt"
	"image"
	"math"

	"github.com/hcunet/hcunet/internal/words"
)

// Fit says how a film becomes an image with other proportions.
type Fit int

const (
	Stretch Fit = iota // it is stretched to the new width and height, as in the notebook
	Pad                // black is added left and right or above and below, then it is scaled
)

// MaskScaling says how a mask is resized.
type MaskScaling int

const (
	// MaskLinear is the method of the notebook: bilinear, and then every value
	// below 255 becomes 0, so that an object loses a thin rim. It is for masks of
	// 0 and 255.
	MaskLinear  MaskScaling = iota
	MaskNearest             // each pixel takes the value of the nearest source pixel
)

var (
	fitWords     = words.Choice[Fit]{What: "fit", Words: []string{"stretch", "pad"}}
	scalingWords = words.Choice[MaskScaling]{What: "mask scaling", Words: []string{"linear", "nearest"}}
)

// String returns "stretch" or "pad".
func (f Fit) String() string { return fitWords.Word(f) }

// MarshalText implements encoding.TextMarshaler.
func (f Fit) MarshalText() ([]byte, error) { return fitWords.Marshal(f) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Fit) UnmarshalText(b []byte) (err error) { *f, err = fitWords.Parse(b); return err }

// String returns "linear" or "nearest".
func (m MaskScaling) String() string { return scalingWords.Word(m) }

// MarshalText implements encoding.TextMarshaler.
func (m MaskScaling) MarshalText() ([]byte, error) { return scalingWords.Marshal(m) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MaskScaling) UnmarshalText(b []byte) (err error) {
	*m, err = scalingWords.Parse(b)
	return err
}

// A Geometry says where a film lies in the image that was made of it, and converts
// masks between the two.
type Geometry struct {
	FilmWidth, FilmHeight int // pixels of the film
	Width, Height         int // pixels of the image
	Fit                   Fit
}

// maxSide and maxPadded limit sizes, so that no product overflows and padding a
// film of one row to a square does not take huge memory.
const (
	maxSide   = 1 << 27
	maxPadded = 1 << 28
)

// Check returns an error if a size is out of range.
func (g Geometry) Check() error {
	for _, side := range []int{g.FilmWidth, g.FilmHeight, g.Width, g.Height} {
		if side < 1 || side > maxSide {
			return fmt.Errorf("resize: cannot bring %dx%d pixels to %dx%d; wanted sides of 1 to %d", g.FilmWidth, g.FilmHeight, g.Width, g.Height, maxSide)
		}
	}
	if _, err := g.Fit.MarshalText(); err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	if w, h, _, _ := g.padded(); g.Width > maxPadded/g.Height || w > maxPadded/h {
		return fmt.Errorf("resize: a film of %dx%d pixels for an image of %dx%d takes %dx%d pixels with its padding; at most %d are allowed",
			g.FilmWidth, g.FilmHeight, g.Width, g.Height, w, h, maxPadded)
	}
	return nil
}

// padded returns the size of the film with its padding, and where the film lies in
// it. With Pad it is the smallest size in whole pixels that has the proportions of
// the image; otherwise it is the size of the film.
func (g Geometry) padded() (w, h, left, top int) {
	w, h = g.FilmWidth, g.FilmHeight
	if g.Fit == Pad {
		w = max(w, (g.FilmHeight*g.Width+g.Height-1)/g.Height)
		h = max(h, (g.FilmWidth*g.Height+g.Width-1)/g.Width)
	}
	return w, h, (w - g.FilmWidth) / 2, (h - g.FilmHeight) / 2
}

// Image returns the image that is made of the film, bilinearly as cv2.resize. It
// returns an error if the film does not have the size in the Geometry.
func (g Geometry) Image(film *image.Gray) (*image.Gray, error) {
	if err := g.check(film, g.FilmWidth, g.FilmHeight, "film"); err != nil {
		return nil, err
	}
	return Linear(g.pad(film), g.Width, g.Height)
}

// Image16 is Image for a 16-bit film, row-major; see Linear16.
func (g Geometry) Image16(film []uint16) ([]uint16, error) {
	if err := g.Check(); err != nil {
		return nil, err
	}
	if len(film) != g.FilmWidth*g.FilmHeight {
		return nil, fmt.Errorf("resize: a film of %dx%d pixels has %d values", g.FilmWidth, g.FilmHeight, len(film))
	}
	w, h, left, top := g.padded()
	return Linear16(padded(film, g.FilmWidth, g.FilmWidth, w, h, left, top), w, h, g.Width, g.Height)
}

// Mask turns the mask of a film into the mask of its image.
func (g Geometry) Mask(mask *image.Gray, scaling MaskScaling) (*image.Gray, error) {
	if err := g.check(mask, g.FilmWidth, g.FilmHeight, "mask"); err != nil {
		return nil, err
	}
	mask = g.pad(mask)
	if scaling == MaskNearest {
		return Nearest(mask, g.Width, g.Height)
	}
	small, err := Mask(mask, g.Width, g.Height)
	if err != nil {
		return nil, err
	}
	for i, v := range small.Pix {
		small.Pix[i] = v / 255 * 255
	}
	return small, nil
}

// Back turns the mask of an image into the mask of its film. Each pixel takes the
// value of the nearest one, and the padding is cut off.
//
// If the image has no more pixels than the padded film, Mask with MaskNearest
// inverts Back exactly.
func (g Geometry) Back(mask *image.Gray) (*image.Gray, error) {
	if err := g.check(mask, g.Width, g.Height, "mask"); err != nil {
		return nil, err
	}
	w, h, left, top := g.padded()
	return sampled(mask, nearest(g.Width, w)[left:][:g.FilmWidth], nearest(g.Height, h)[top:][:g.FilmHeight]), nil
}

func (g Geometry) check(img *image.Gray, w, h int, what string) error {
	if err := g.Check(); err != nil {
		return err
	}
	if err := checkImage(img); err != nil {
		return err
	}
	if img.Rect.Dx() != w || img.Rect.Dy() != h {
		return fmt.Errorf("resize: the %s has %dx%d pixels; wanted %dx%d", what, img.Rect.Dx(), img.Rect.Dy(), w, h)
	}
	return nil
}

func (g Geometry) pad(img *image.Gray) *image.Gray {
	w, h, left, top := g.padded()
	if w == g.FilmWidth && h == g.FilmHeight {
		return img
	}
	return &image.Gray{Pix: padded(img.Pix, g.FilmWidth, img.Stride, w, h, left, top), Stride: w, Rect: image.Rect(0, 0, w, h)}
}

// padded returns w x h pixels that hold the rows of pix, each of width pixels,
// with the first at left, top. All other pixels are 0.
func padded[T uint8 | uint16](pix []T, width, stride, w, h, left, top int) []T {
	if w == width && left == 0 && w*h == len(pix) {
		return pix
	}
	out := make([]T, w*h)
	for y := 0; y*stride < len(pix) && top+y < h; y++ {
		copy(out[(top+y)*w+left:][:width], pix[y*stride:])
	}
	return out
}

// Linear16 resizes width x height row-major 16-bit pixels to w x h pixels:
// bilinearly like Linear, but in float64, rounded half to even.
func Linear16(pix []uint16, width, height, w, h int) ([]uint16, error) {
	if err := check(image.Pt(width, height), w, h); err != nil {
		return nil, err
	}
	if width > math.MaxInt/height || len(pix) != width*height {
		return nil, fmt.Errorf("resize: %dx%d pixels have %d values", width, height, len(pix))
	}
	cols, rows := taps(width, w), taps(height, h)
	out := make([]uint16, 0, w*h)
	for _, r := range rows {
		a := pix[max(r.at, 0)*width:][:width]
		b := pix[min(r.at+1, height-1)*width:][:width]
		for _, c := range cols {
			left, right := max(c.at, 0), min(c.at+1, width-1)
			fa, fb := float64(c.fa), float64(c.fb)
			top := float64(float64(a[left])*fa) + float64(float64(a[right])*fb)
			bottom := float64(float64(b[left])*fa) + float64(float64(b[right])*fb)
			v := float64(top*float64(r.fa)) + float64(bottom*float64(r.fb))
			out = append(out, uint16(min(math.RoundToEven(v), math.MaxUint16)))
		}
	}
	return out, nil
}

// checkImage returns an error if an image is empty or Pix is too short for its
// size.
func checkImage(img *image.Gray) error {
	switch w, h := img.Rect.Dx(), img.Rect.Dy(); {
	case w < 1 || h < 1:
		return fmt.Errorf("resize: the image is empty (%dx%d pixels)", w, h)
	case img.Stride < w || h-1 > (len(img.Pix)-w)/img.Stride || len(img.Pix) < w:
		return fmt.Errorf("resize: an image of %dx%d pixels, %d from row to row, has %d values", w, h, img.Stride, len(img.Pix))
	}
	return nil
}

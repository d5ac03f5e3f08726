package data

import (
	"fmt"
	"image"

	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/rle"
)

// Fit says how a picture of one shape becomes one of another.
type Fit int

const (
	Stretch Fit = iota // to the new width and height, as the notebook does
	Pad                // black is added right and left or above and below, then as Stretch
)

// MaskScaling says how a mask changes its size.
type MaskScaling int

const (
	// Linear is the notebook's: bilinear, and what is not quite 255 afterwards
	// becomes 0, so that an object loses a thin rim. It is for two classes.
	Linear  MaskScaling = iota
	Nearest             // each pixel is 0 or 255, from the nearest one
)

// FitImage returns img at w x h pixels, bilinear as cv2.resize. It fails if img is
// empty or a side is below 1.
func FitImage(img *image.Gray, w, h int, fit Fit) (*image.Gray, error) {
	if img.Rect.Empty() || w < 1 || h < 1 {
		return nil, fmt.Errorf("data: cannot bring %s pixels to %dx%d", size(img), w, h)
	}
	return resize.Linear(fit.shape(img, w, h), w, h)
}

// FitMask returns a mask, 0 and 255, at w x h pixels, where FitImage puts the
// picture. It fails if mask is empty or a side is below 1.
func FitMask(mask *image.Gray, w, h int, fit Fit, scaling MaskScaling) (*image.Gray, error) {
	if mask.Rect.Empty() || w < 1 || h < 1 {
		return nil, fmt.Errorf("data: cannot bring a mask of %s pixels to %dx%d", size(mask), w, h)
	}
	mask = fit.shape(mask, w, h)
	if scaling == Nearest {
		return rle.Resize(mask, w, h), nil
	}
	small, err := resize.Mask(mask, w, h)
	if err != nil {
		return nil, err
	}
	for i, v := range small.Pix {
		small.Pix[i] = v / 255 * 255
	}
	return small, nil
}

func size(img *image.Gray) string { return fmt.Sprintf("%dx%d", img.Rect.Dx(), img.Rect.Dy()) }

// shape returns img with the proportions of w x h: itself, or in the middle of a
// black area as little larger as whole pixels allow.
func (f Fit) shape(img *image.Gray, w, h int) *image.Gray {
	iw, ih := img.Rect.Dx(), img.Rect.Dy()
	pw, ph := iw, ih
	if f == Pad {
		pw = max(iw, (ih*w+h-1)/h)
		ph = max(ih, (iw*h+w-1)/w)
	}
	if pw == iw && ph == ih {
		return img
	}
	out := image.NewGray(image.Rect(0, 0, pw, ph))
	left, top := (pw-iw)/2, (ph-ih)/2
	for y := range ih {
		copy(out.Pix[(top+y)*out.Stride+left:][:iw], img.Pix[y*img.Stride:][:iw])
	}
	return out
}

// binarize makes a mask picture of any convention 0 and 255, in place: a picture of
// two values has its higher one as the mask, so that 0 and 1 are read as well as
// 0 and 255; in one of more values, 128 and above is mask.
func binarize(mask *image.Gray) {
	var seen [256]bool
	for _, v := range mask.Pix {
		seen[v] = true
	}
	level, values := 128, 0
	for v, s := range seen {
		if s && v > 0 {
			if values++; values == 1 {
				level = v
			}
		}
	}
	if values > 1 {
		level = 128
	}
	for i, v := range mask.Pix {
		if int(v) >= level {
			mask.Pix[i] = 255
		} else {
			mask.Pix[i] = 0
		}
	}
}

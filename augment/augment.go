// Package augment draws random transforms of images and their masks, and
// applies them.
//
// [Default] is the notebook's get_transforms() of fastai 1.0.54: a horizontal flip, a
// symmetric perspective warp, a rotation, a zoom about a random point, and a change
// of brightness and of contrast in logit space. [Config.Draw] draws the [Params] of
// one item from a [Config] and a random source. [Params.Plan] turns them and an image
// size into a [Plan], which holds geometry and lighting as matrices and coefficients.
// [Plan.Image] and [Mask] apply the plan in pure Go. A device can apply a batch of
// plans with one grid sample, from the numbers that Plan documents; the results agree
// to float32 rounding.
//
// Images are row-major float32 values in [0, 1], channel after channel (C, H, W).
// x goes to the right and y goes down. In normalized coordinates, -1 is the
// centre of the first pixel of an axis and 1 the centre of the last pixel
// (align_corners=True in torch).
//
// Source: fastai 1.0.54, vision/transform.py and vision/image.py.
package augment

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/hcunet/hcunet/internal/words"
)

// Padding is the rule for pixels outside the image.
type Padding int

const (
	Reflection Padding = iota // the image mirrored about its outermost pixel centres
	Border                    // the outermost pixels, repeated
	Zeros                     // 0
)

var paddings = words.Choice[Padding]{What: "augment: padding", Words: []string{"reflection", "border", "zeros"}}

// String returns "reflection", "border" or "zeros".
func (p Padding) String() string { return paddings.Word(p) }

// MarshalText implements encoding.TextMarshaler.
func (p Padding) MarshalText() ([]byte, error) { return paddings.Marshal(p) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Padding) UnmarshalText(b []byte) (err error) {
	*p, err = paddings.Parse(b)
	return err
}

// Config says which transforms to draw, and how strong they are. The zero value
// draws none, but crops at random if the target is smaller than the image.
// [Default] returns the transforms of the notebook. A Config that is written to
// JSON and read back is equal.
type Config struct {
	PFlip     float64 `json:"p_flip"`     // probability of a horizontal flip
	PAffine   float64 `json:"p_affine"`   // probability of each of warp, rotation and zoom
	PLighting float64 `json:"p_lighting"` // probability of each of brightness and contrast

	MaxWarp       float64 `json:"max_warp"`       // magnitude of the perspective warp, in half image sides, up to 0.3
	MaxRotate     float64 `json:"max_rotate"`     // degrees to either side, up to 180
	MaxZoom       float64 `json:"max_zoom"`       // largest magnification; 0 means none, as 1 does
	MaxBrightness float64 `json:"max_brightness"` // largest change of mid-grey, as a share of it, below 1
	MaxContrast   float64 `json:"max_contrast"`   // largest share by which contrast falls, below 1; it rises by the inverse

	CenterCrop bool `json:"center_crop"` // crop the centre, not at random

	Padding Padding `json:"padding"` // what a transform shows where it samples outside the image
}

// Default returns the transforms of fastai's get_transforms(), which the notebook
// uses.
func Default() Config {
	return Config{
		PFlip: 0.5, PAffine: 0.75, PLighting: 0.75,
		MaxWarp: 0.2, MaxRotate: 10, MaxZoom: 1.1, MaxBrightness: 0.2, MaxContrast: 0.2,
	}
}

// Params holds all random values of one item. They are drawn once and applied
// to both image and mask. The zero value changes nothing, except that it crops
// at the top left if the target is smaller than the image; [Identity] crops the
// centre.
type Params struct {
	// Warp moves the corners of the frame, in half image sides: 0 and 1 stretch
	// the right and the left side vertically, 2 and 3 the bottom and the top side
	// horizontally. All 0 means none.
	Warp [4]float64

	Degrees float64 // rotation, anticlockwise on the screen; 0 means none

	Zoom             float64 // magnification; 0 or 1 means none
	ZoomRow, ZoomCol float64 // its fixed point, in [0, 1] from top and left

	Brightness float64 // new value of mid-grey, in (0, 1); 0 or 0.5 means unchanged
	Contrast   float64 // factor on logits, positive; 0 or 1 means unchanged

	Flip bool // mirror left and right, after all transforms above

	CropRow, CropCol float64 // where to crop, in [0, 1] from top and left

	Padding Padding
}

// Identity returns the Params that change nothing and crop the centre, as
// fastai does with a validation or test image.
func Identity() Params { return Params{CropRow: 0.5, CropCol: 0.5} }

// Check returns an error if a value of c is out of its range.
func (c Config) Check() error {
	for _, v := range []struct {
		name     string
		value    float64
		min, max float64
	}{
		{"PFlip", c.PFlip, 0, 1},
		{"PAffine", c.PAffine, 0, 1},
		{"PLighting", c.PLighting, 0, 1},
		{"MaxWarp", c.MaxWarp, 0, 0.3}, // from 0.37 on, some warps turn the frame inside out
		{"MaxRotate", c.MaxRotate, 0, 180},
		{"MaxZoom", c.magnification(), 1, 100},
		{"MaxBrightness", c.MaxBrightness, 0, 0.99},
		{"MaxContrast", c.MaxContrast, 0, 0.99},
	} {
		if !(v.value >= v.min && v.value <= v.max) {
			return fmt.Errorf("augment: %s is %v; wanted a value in [%v, %v]", v.name, v.value, v.min, v.max)
		}
	}
	_, err := c.Padding.MarshalText()
	return err
}

func (c Config) magnification() float64 {
	if c.MaxZoom == 0 {
		return 1
	}
	return c.MaxZoom
}

// Draw returns the random values of one item. It always takes 18 numbers from r, so
// that with the same source two configurations differ only in the transforms that
// they configure differently. c should pass [Config.Check].
//
// As in fastai, these are uniform: the four magnitudes of the warp in ±MaxWarp,
// degrees in ±MaxRotate, zoom in [1, MaxZoom], its fixed point anywhere in the
// image, brightness in 0.5 ± 0.5 MaxBrightness, and the place of the crop. The
// logarithm of the contrast is uniform; the contrast lies between 1-MaxContrast
// and its inverse.
func (c Config) Draw(r *rand.Rand) Params {
	uniform := func(lo, hi float64) float64 { return lo + (hi-lo)*r.Float64() }
	coin := func(p float64) bool { return r.Float64() < p }

	p := Identity()
	p.Padding = c.Padding
	row, col := r.Float64(), r.Float64()
	if !c.CenterCrop {
		p.CropRow, p.CropCol = row, col
	}
	p.Flip = coin(c.PFlip)

	m := c.MaxWarp
	warp := [4]float64{uniform(-m, m), uniform(-m, m), uniform(-m, m), uniform(-m, m)}
	if coin(c.PAffine) {
		p.Warp = warp
	}
	degrees := uniform(-c.MaxRotate, c.MaxRotate)
	if coin(c.PAffine) {
		p.Degrees = degrees
	}
	zoom, row, col := uniform(1, c.magnification()), r.Float64(), r.Float64()
	if coin(c.PAffine) {
		p.Zoom, p.ZoomRow, p.ZoomCol = zoom, row, col
	}
	m = c.MaxBrightness
	brightness := uniform(0.5*(1-m), 0.5*(1+m))
	if coin(c.PLighting) {
		p.Brightness = brightness
	}
	m = c.MaxContrast
	contrast := math.Exp(uniform(math.Log(1-m), -math.Log(1-m)))
	if coin(c.PLighting) {
		p.Contrast = contrast
	}
	return p
}

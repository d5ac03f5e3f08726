// Package augment draws random transforms of an image and its mask as numbers,
// and applies them.
//
// The zero [Config] is the notebook's get_transforms() of fastai 1.0.54: a
// horizontal flip, a symmetric perspective warp, a rotation, a zoom about a
// random point, and a change of brightness and of contrast in logit space.
// [Config.Draw] turns it and a random source into [Params], one item's numbers;
// [Params.Plan] turns those and an image size into a [Plan], the geometry and
// lighting as matrices and coefficients; [Plan.Image] and [Mask] apply the plan
// in pure Go. A device applies a batch of plans in one grid sample, from the
// numbers that Plan documents; the two agree to float32 rounding.
//
// Images are row-major float32 values in [0, 1], channel after channel (C, H, W).
// Coordinates are x to the right and y down; in normalized coordinates -1 is the
// centre of the first pixel of an axis and 1 that of the last (torch's
// align_corners=True).
//
// Source: fastai 1.0.54, vision/transform.py and vision/image.py.
package augment

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Padding says what lies outside the image.
type Padding int

const (
	Reflection Padding = iota // the image mirrored about its outermost pixel centres
	Border                    // the outermost pixels, repeated
	Zeros                     // 0
)

var paddings = []string{"reflection", "border", "zeros"}

// String returns "reflection", "border" or "zeros".
func (p Padding) String() string {
	if p < Reflection || p > Zeros {
		return fmt.Sprintf("padding(%d)", int(p))
	}
	return paddings[p]
}

// MarshalText implements encoding.TextMarshaler.
func (p Padding) MarshalText() ([]byte, error) {
	if p < Reflection || p > Zeros {
		return nil, fmt.Errorf("augment: unknown padding %d", int(p))
	}
	return []byte(paddings[p]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Padding) UnmarshalText(b []byte) error {
	for v, word := range paddings {
		if string(b) == word {
			*p = Padding(v)
			return nil
		}
	}
	return fmt.Errorf("augment: padding %q; wanted reflection, border or zeros", b)
}

// Config says which transforms to draw, and how strong; the zero value draws
// the notebook's. It goes to JSON and comes back equal.
type Config struct {
	NoFlip       bool `json:"no_flip"` // no horizontal flip; else one in two is flipped
	NoWarp       bool `json:"no_warp"` // no perspective warp
	NoRotate     bool `json:"no_rotate"`
	NoZoom       bool `json:"no_zoom"`
	NoBrightness bool `json:"no_brightness"`
	NoContrast   bool `json:"no_contrast"`
	NoCrop       bool `json:"no_crop"` // crop about the centre, not a random place, where there is anything to crop

	MaxWarp     float64 `json:"max_warp"`     // magnitude of the warp, in half image sides, up to 0.3; 0 means 0.2
	MaxRotate   float64 `json:"max_rotate"`   // degrees to either side, up to 180; 0 means 10
	MaxZoom     float64 `json:"max_zoom"`     // the largest magnification, from 1; 0 means 1.1
	MaxLighting float64 `json:"max_lighting"` // strength of brightness and contrast, below 1; 0 means 0.2

	PAffine   float64 `json:"p_affine"`   // probability of each of warp, rotation and zoom; 0 means 0.75
	PLighting float64 `json:"p_lighting"` // probability of each of brightness and contrast; 0 means 0.75

	Padding Padding `json:"padding"` // what a transform draws in from outside; the notebook's is Reflection
}

// Params is everything random about one item, drawn once and applied to image
// and mask alike. The zero value changes nothing but, where the target size is
// smaller than the image, crops at the top left; [Identity] crops the centre.
type Params struct {
	// Warp moves the corners of the frame, in half image sides: 0 and 1 stretch
	// the right and the left side vertically, 2 and 3 the bottom and the top side
	// horizontally. All 0 means none.
	Warp [4]float64

	Degrees float64 // rotation, anticlockwise as seen; 0 means none

	Zoom             float64 // magnification; 0 or 1 means none
	ZoomRow, ZoomCol float64 // its fixed point, in [0, 1] from top and left

	Brightness float64 // what mid-grey becomes, in (0, 1); 0 or 0.5 means unchanged
	Contrast   float64 // factor on logits, positive; 0 or 1 means unchanged

	Flip bool // mirror left and right, after all the above

	CropRow, CropCol float64 // where to crop, in [0, 1] from top and left

	Padding Padding
}

// Identity changes nothing and crops about the centre: what fastai does to a
// validation or test image.
func Identity() Params { return Params{CropRow: 0.5, CropCol: 0.5} }

// Check returns an error if a value of c is out of its range.
func (c Config) Check() error {
	for _, v := range []struct {
		name     string
		value    float64
		min, max float64
	}{
		{"MaxWarp", c.MaxWarp, 0, 0.3}, // from 0.37 some warps turn the frame inside out
		{"MaxRotate", c.MaxRotate, 0, 180},
		{"MaxZoom", c.MaxZoom, 1, 100},
		{"MaxLighting", c.MaxLighting, 0, 0.99},
		{"PAffine", c.PAffine, 0, 1},
		{"PLighting", c.PLighting, 0, 1},
	} {
		if v.value != 0 && !(v.value >= v.min && v.value <= v.max) {
			return fmt.Errorf("augment: %s is %v; wanted a value in [%v, %v], or 0 for the default", v.name, v.value, v.min, v.max)
		}
	}
	if c.Padding < Reflection || c.Padding > Zeros {
		return fmt.Errorf("augment: unknown Padding %d", int(c.Padding))
	}
	return nil
}

// Draw returns one item's transforms. It takes 18 numbers from r whatever comes
// out and whatever is switched off, so that two configurations with the same
// source differ only where they say so. c should pass [Config.Check].
//
// Uniform, as in fastai: the warp's four magnitudes in ±MaxWarp, degrees in
// ±MaxRotate, zoom in [1, MaxZoom] with its fixed point anywhere, brightness in
// 0.5 ± 0.5 MaxLighting, the crop's place; contrast is uniform in the logarithm,
// between 1-MaxLighting and its inverse.
func (c Config) Draw(r *rand.Rand) Params {
	or := func(v, otherwise float64) float64 {
		if v == 0 {
			return otherwise
		}
		return v
	}
	uniform := func(lo, hi float64) float64 { return lo + (hi-lo)*r.Float64() }
	coin := func(p float64) bool { return r.Float64() < p }
	affine, lighting := or(c.PAffine, 0.75), or(c.PLighting, 0.75)

	p := Identity()
	p.Padding = c.Padding
	row, col := r.Float64(), r.Float64()
	if !c.NoCrop {
		p.CropRow, p.CropCol = row, col
	}
	p.Flip = coin(0.5) && !c.NoFlip

	m := or(c.MaxWarp, 0.2)
	warp := [4]float64{uniform(-m, m), uniform(-m, m), uniform(-m, m), uniform(-m, m)}
	if coin(affine) && !c.NoWarp {
		p.Warp = warp
	}
	m = or(c.MaxRotate, 10)
	degrees := uniform(-m, m)
	if coin(affine) && !c.NoRotate {
		p.Degrees = degrees
	}
	zoom, row, col := uniform(1, or(c.MaxZoom, 1.1)), r.Float64(), r.Float64()
	if coin(affine) && !c.NoZoom {
		p.Zoom, p.ZoomRow, p.ZoomCol = zoom, row, col
	}
	m = or(c.MaxLighting, 0.2)
	brightness := uniform(0.5*(1-m), 0.5*(1+m))
	if coin(lighting) && !c.NoBrightness {
		p.Brightness = brightness
	}
	contrast := math.Exp(uniform(math.Log(1-m), -math.Log(1-m)))
	if coin(lighting) && !c.NoContrast {
		p.Contrast = contrast
	}
	return p
}

package resize_test

import (
	"fmt"
	"image"
	"image/color"

	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/rle"
)

// Reducing a mask by four looks at the middle 2x2 of every 4x4 pixels: where the
// object's border crosses them, the value says how many belong to it.
func ExampleMask() {
	mask := image.NewGray(image.Rect(0, 0, 12, 8))
	for i := range mask.Pix {
		if x, y := i%12, i/12; x >= 2 && x < 10 && y >= 2 {
			mask.Pix[i] = 255
		}
	}
	small, err := resize.Mask(mask, 3, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(small.Pix[:3], small.Pix[3:])
	// Output: [64 128 64] [128 255 128]
}

// A small prediction becomes the text for the whole film, which was padded at the
// sides.
func ExampleGeometry() {
	prediction := image.NewGray(image.Rect(0, 0, 256, 256))
	prediction.SetGray(74, 9, color.Gray{Y: 255})
	prediction.SetGray(75, 9, color.Gray{Y: 255})
	g := resize.Geometry{FilmWidth: 768, FilmHeight: 1024, Width: 256, Height: 256, Fit: resize.Pad}
	mask, err := g.Back(prediction)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(rle.Encode(mask, nil))
	// Output: 172068 4 1020 4 1020 4 1020 4 1020 4 1020 4 1020 4 1020 4
}

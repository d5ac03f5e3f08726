package resize_test

import (
	"fmt"
	"image"

	"github.com/hcunet/hcunet/data/resize"
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

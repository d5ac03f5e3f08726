package augment

import "fmt"

// Flip mirrors maps of width w left and right, in place: (…, H, w) values, row
// after row. Test-time augmentation uses it for the image and to flip the
// prediction back. It panics if the values do not fill whole rows.
func Flip[T any](pix []T, w int) {
	if w < 1 || len(pix)%w != 0 {
		panic(fmt.Errorf("augment: %d values do not fill whole rows of %d", len(pix), w))
	}
	for ; len(pix) > 0; pix = pix[w:] {
		for i, j := 0, w-1; i < j; i, j = i+1, j-1 {
			pix[i], pix[j] = pix[j], pix[i]
		}
	}
}

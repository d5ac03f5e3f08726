// Package grey counts the levels of grey pictures.
package grey

import "image"

// Few is the number of levels below which a film has lost nearly all contrast. A
// radiograph that uses the full range has 200 levels or more in 8 bits.
const Few = 32

// Levels returns the number of different levels in img, 0 to 256.
func Levels(img *image.Gray) int {
	var seen [256]bool
	w := img.Rect.Dx()
	for y := range img.Rect.Dy() {
		for _, v := range img.Pix[y*img.Stride : y*img.Stride+w] {
			seen[v] = true
		}
	}
	n := 0
	for _, s := range seen {
		if s {
			n++
		}
	}
	return n
}

package grey

import (
	"image"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLevels(t *testing.T) {
	img := image.NewGray(image.Rect(0, 0, 4, 2))
	copy(img.Pix, []uint8{0, 7, 7, 1, 255, 0, 9, 2})
	assert.Equal(t, 6, Levels(img))                                                // 0 1 2 7 9 255
	assert.Equal(t, 3, Levels(img.SubImage(image.Rect(1, 0, 3, 2)).(*image.Gray))) // 7 7, 0 9
	assert.Equal(t, 1, Levels(image.NewGray(image.Rect(0, 0, 4, 2))))              // black
	assert.Equal(t, 0, Levels(&image.Gray{}))                                      // no pixel
	assert.Equal(t, 1, Levels(img.SubImage(image.Rect(3, 1, 4, 2)).(*image.Gray))) // one pixel
	assert.Equal(t, 4, Levels(img.SubImage(image.Rect(0, 1, 4, 2)).(*image.Gray))) // 255 0 9 2
	assert.Equal(t, 0, Levels(img.SubImage(image.Rect(9, 9, 9, 9)).(*image.Gray))) // empty
	full := image.NewGray(image.Rect(0, 0, 256, 1))
	for i := range full.Pix {
		full.Pix[i] = uint8(i)
	}
	assert.Equal(t, 256, Levels(full))
}

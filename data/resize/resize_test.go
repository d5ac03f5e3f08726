package resize

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/internal/golden"
)

// picture and blobs repeat the formulas of testdata/cases.py.
func picture(w, h int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		x, y := i%w, i/w
		img.Pix[i] = uint8((x*x*7 + y*y*13 + x*y*5 + x*91) / 3)
	}
	return img
}

func blobs(w, h int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		if x, y := i%w, i/w; (x*x*3+y*x+y*17)/64%3 == 0 {
			img.Pix[i] = 255
		}
	}
	return img
}

func hash(b []uint8) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// Whole-number arithmetic, and float64 in OpenCV's order: no tolerance.
func TestSizes(t *testing.T) {
	raw, err := os.ReadFile("testdata/cases.json") // made by testdata/cases.py
	require.NoError(t, err)
	var file struct {
		Cases []struct {
			FromW int `json:"from_w"`
			FromH int `json:"from_h"`
			W, H  int
			Image string
			Mask  string
			Third string `json:"image_as_mask"`
			Some  []uint8
		}
	}
	require.NoError(t, json.Unmarshal(raw, &file))
	require.Len(t, file.Cases, 43)
	for _, c := range file.Cases {
		name := fmt.Sprintf("%dx%d to %dx%d", c.FromW, c.FromH, c.W, c.H)
		img, err := Linear(picture(c.FromW, c.FromH), c.W, c.H)
		require.NoError(t, err)
		for i, want := range c.Some {
			at := i * len(img.Pix) / len(c.Some)
			assert.Equal(t, want, img.Pix[at], "%s: byte %d", name, at)
		}
		assert.Equal(t, c.Image, hash(img.Pix), name)
		mask, err := Mask(blobs(c.FromW, c.FromH), c.W, c.H)
		require.NoError(t, err)
		assert.Equal(t, c.Mask, hash(mask.Pix), "mask %s", name)
		grey, err := Mask(picture(c.FromW, c.FromH), c.W, c.H)
		require.NoError(t, err)
		assert.Equal(t, c.Third, hash(grey.Pix), "image as a mask, %s", name)
	}
}

// The 1024x1024 ellipse of golden/scripts/b9.py and its reductions.
func TestGoldenMasks(t *testing.T) {
	m := golden.Tensors(t, "b9_clahe/clahe.safetensors")
	in := image.NewGray(image.Rect(0, 0, 1024, 1024))
	for i := range in.Pix {
		x, y := float64(i%1024), float64(i/1024)
		if (y-400)*(y-400)/(150*150)+(x-600)*(x-600)/(90*90) <= 1 {
			in.Pix[i] = 255
		}
	}
	for _, size := range []int{256, 128} {
		want := m[fmt.Sprintf("mask.%d.png_u8", size)].Data
		mask, err := Mask(in, size, size)
		require.NoError(t, err)
		assert.Equal(t, want, mask.Pix, "%d", size)
		bytes, err := Linear(in, size, size)
		require.NoError(t, err)
		assert.Equal(t, want, bytes.Pix, "%d", size)
	}
}

func TestViewIsReadAsItLooks(t *testing.T) {
	big := picture(90, 70)
	view := big.SubImage(image.Rect(20, 7, 57, 62)).(*image.Gray)
	flat := image.NewGray(image.Rect(0, 0, 37, 55))
	for y := range 55 {
		copy(flat.Pix[y*37:], view.Pix[y*view.Stride:][:37])
	}
	for _, f := range []func(*image.Gray, int, int) (*image.Gray, error){Linear, Mask} {
		for _, size := range [][2]int{{37, 55}, {11, 80}} {
			want, err := f(flat, size[0], size[1])
			require.NoError(t, err)
			got, err := f(view, size[0], size[1])
			require.NoError(t, err)
			assert.Equal(t, want, got)
		}
	}
}

func TestBadSizes(t *testing.T) {
	img := picture(4, 3)
	for _, f := range []func(*image.Gray, int, int) (*image.Gray, error){Linear, Mask} {
		for _, size := range [][2]int{{0, 4}, {4, 0}, {-1, -1}, {1 << 40, 1 << 40}} {
			_, err := f(img, size[0], size[1])
			assert.ErrorContains(t, err, "resize: target of ")
		}
		_, err := f(image.NewGray(image.Rectangle{}), 4, 4)
		assert.ErrorContains(t, err, "resize: the image is empty")
	}
}

func BenchmarkLinear(b *testing.B) {
	for _, size := range [][2]int{{1024, 256}, {1024, 512}, {1024, 640}, {256, 1024}} {
		b.Run(fmt.Sprintf("%dto%d", size[0], size[1]), func(b *testing.B) {
			img := picture(size[0], size[0])
			b.ReportAllocs()
			for b.Loop() {
				Linear(img, size[1], size[1])
			}
		})
	}
}

func BenchmarkMask1024to256(b *testing.B) {
	img := blobs(1024, 1024)
	b.ReportAllocs()
	for b.Loop() {
		Mask(img, 256, 256)
	}
}

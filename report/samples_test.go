package report

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// disc is a w x h film with a bright area, its mask and a prediction that is
// shifted to the right.
func disc(w, h int) Sample {
	film := image.NewGray(image.Rect(0, 0, w, h))
	s := Sample{Image: film, Target: make([]uint8, w*h), Predicted: make([]uint8, w*h)}
	for y := range h {
		for x := range w {
			film.Pix[y*w+x] = uint8(40 + 120*x/w + 60*y/h)
			dx, dy := float64(x-w/3)/float64(w), float64(y-h/2)/float64(h)
			if dx*dx+4*dy*dy < 0.03 {
				s.Target[y*w+x] = 1
			}
			dx -= 0.05
			if dx*dx+4*dy*dy < 0.03 {
				s.Predicted[y*w+x] = 1
			}
		}
	}
	return s
}

func TestSamples(t *testing.T) {
	a, b, c := disc(128, 128), disc(96, 64), disc(700, 512)
	a.Caption = "0001_1.png   Dice 0.871"
	b.Caption = "a wide film"
	c.Caption = "no target known " + strings.Repeat("and a caption that does not fit ", 10)
	c.Target = nil
	// A window into a larger image: its rectangle does not begin at zero.
	big := image.NewGray(image.Rect(0, 0, 200, 200))
	window := big.SubImage(image.Rect(50, 60, 178, 188)).(*image.Gray)
	for y := range 128 {
		copy(window.Pix[y*window.Stride:][:128], a.Image.(*image.Gray).Pix[y*128:])
	}
	direct, windowed := filepath.Join(t.TempDir(), "a.png"), filepath.Join(t.TempDir(), "b.png")
	require.NoError(t, Samples(direct, []Sample{a}, nil))
	w := a
	w.Image = window
	require.NoError(t, Samples(windowed, []Sample{w}, nil))
	x, err := os.ReadFile(direct)
	require.NoError(t, err)
	y, err := os.ReadFile(windowed)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(x, y), "a window into a larger image looks like the image")

	path := out(t, "samples.png")
	require.NoError(t, Samples(path, []Sample{a, b, c}, &SampleOptions{Title: "Fold 0, held-out cases"}))
	m := decode(t, path)
	assert.True(t, has(m, contourColors[0]), "target outline")
	assert.True(t, has(m, predicted), "prediction outline")
}

// Several classes have their own colours, in the legend as in the pictures.
func TestSamplesOfClasses(t *testing.T) {
	s := disc(128, 96)
	for i, v := range s.Target {
		if v == 1 && i%128 > 40 {
			s.Target[i] = 2
		}
		if s.Predicted[i] == 1 && i/128 > 48 {
			s.Predicted[i] = 3
		}
	}
	s.Caption = "three classes"
	path := out(t, "classes.png")
	require.NoError(t, Samples(path, []Sample{s}, &SampleOptions{Title: "Lungs and heart", Classes: []string{"background", "right lung", "left lung", "heart"}}))
	m := decode(t, path)
	for _, c := range contourColors[:3] {
		assert.True(t, has(m, c))
		legend := m.(*image.RGBA).SubImage(image.Rect(0, headRow, m.Bounds().Dx(), 3*headRow))
		assert.True(t, has(legend, c), "in the legend")
	}
	assert.False(t, has(m, predicted), "which is the prediction's only where there is one class")
}

func TestGrid(t *testing.T) {
	var batch []Sample
	for i := range 5 {
		s := disc(64, 64)
		s.Caption = fmt.Sprintf("000%d.png", i)
		s.Predicted = nil
		batch = append(batch, s)
	}
	path := out(t, "grid.png")
	require.NoError(t, Grid(path, batch, 4, &SampleOptions{Title: "First batch", Cell: 100}))
	m := decode(t, path)
	assert.Equal(t, image.Pt(samplePad+4*(100+samplePad), samplePad+headRow+2*(100+captionRow+samplePad)), m.Bounds().Size())
	assert.True(t, has(m, contourColors[0]))
	cell := func(column, row int) image.Image {
		x, y := samplePad+column*(100+samplePad), samplePad+headRow+row*(100+captionRow+samplePad)
		return m.(*image.RGBA).SubImage(image.Rect(x, y, x+100, y+100))
	}
	assert.True(t, has(cell(3, 0), contourColors[0]), "the fourth")
	assert.True(t, has(cell(0, 1), contourColors[0]), "the fifth, in a row of its own")
	assert.False(t, has(cell(1, 1), contourColors[0]))
}

func TestSamplesRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.png")
	good := disc(8, 4)
	short, wild, other := disc(8, 4), disc(8, 4), disc(8, 4)
	short.Predicted = short.Predicted[1:]
	wild.Target[7] = 2
	other.Target = make([]uint8, 16)
	for _, c := range []struct {
		name    string
		samples []Sample
		want    string
	}{
		{"none", nil, "no samples"},
		{"no image", []Sample{good, {Caption: "0002.png"}}, "sample 1 (0002.png): there is no image"},
		{"other target", []Sample{other}, "the target has 16 pixels, the image of (8,4) 32"},
		{"short prediction", []Sample{short}, "the prediction has 31 pixels"},
		{"a class without a name", []Sample{wild}, "the target has a class 2, there are names of 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.ErrorContains(t, Samples(path, c.samples, nil), c.want)
			require.ErrorContains(t, Grid(path, c.samples, 2, nil), c.want)
			require.NoFileExists(t, path)
		})
	}
	many := make([]Sample, 1000)
	for i := range many {
		many[i] = good
	}
	require.ErrorContains(t, Samples(path, many, nil), "draw fewer")
}

// A pixel is 1 film pixel enlarged by 4: what stands at (x, y) of the film must
// come out at 4x, 4y of the picture.
func TestSamplesGeometry(t *testing.T) {
	film := image.NewGray(image.Rect(0, 0, 5, 3))
	s := Sample{Image: film, Target: make([]uint8, 15), Predicted: make([]uint8, 15)}
	film.SetGray(4, 0, color.Gray{200})
	s.Target[1*5+3] = 1
	s.Predicted[2*5+1] = 1
	path := filepath.Join(t.TempDir(), "s.png")
	require.NoError(t, Samples(path, []Sample{s}, &SampleOptions{Cell: 20}))
	m := decode(t, path)
	at := func(column, x, y int) color.RGBA {
		return color.RGBAModel.Convert(m.At(samplePad+column*(20+samplePad)+4*x, samplePad+headRow+4*y)).(color.RGBA)
	}
	black := color.RGBA{0, 0, 0, 255}
	assert.Equal(t, color.RGBA{200, 200, 200, 255}, at(0, 4, 0))
	assert.Equal(t, black, at(0, 3, 1))
	assert.Equal(t, contourColors[0], at(1, 3, 1))
	assert.Equal(t, black, at(1, 1, 2))
	assert.Equal(t, predicted, at(2, 1, 2))
	x, y := samplePad+2*(20+samplePad)+4*3, samplePad+headRow+4*1
	assert.True(t, has(m.(*image.RGBA).SubImage(image.Rect(x, y, x+4, y+4)), contourColors[0]), "the target's outline, dashed")
	assert.Equal(t, black, at(2, 2, 1))
}

// Contours do not cover the inside of a mask: there the film is visible.
func TestSamplesLeaveTheInsideFree(t *testing.T) {
	s := disc(60, 60)
	path := filepath.Join(t.TempDir(), "s.png")
	require.NoError(t, Samples(path, []Sample{s}, &SampleOptions{Cell: 60}))
	m := decode(t, path)
	for column := 1; column <= 2; column++ {
		x, y := 21, 30 // near the middle of both discs
		want := s.Image.At(x, y)
		assert.Equal(t, color.RGBAModel.Convert(want), color.RGBAModel.Convert(m.At(samplePad+column*(60+samplePad)+x, samplePad+headRow+y)))
	}
}

// A film that is higher than wide fills its cell by its height.
func TestSamplesTall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.png")
	require.NoError(t, Samples(path, []Sample{disc(10, 40)}, &SampleOptions{Cell: 80}))
	assert.Equal(t, image.Pt(samplePad+3*(20+samplePad), 2*samplePad+headRow+80+captionRow), decode(t, path).Bounds().Size())
}

func TestImageOf(t *testing.T) {
	nan := float32(math.NaN())
	grey, err := ImageOf(1, 2, 3, []float32{0, 0.5, 1, -1, 2, nan})
	require.NoError(t, err)
	assert.Equal(t, []uint8{0, 128, 255, 0, 255, 0}, grey.(*image.Gray).Pix)
	assert.Equal(t, image.Rect(0, 0, 3, 2), grey.Bounds())
	rgb, err := ImageOf(3, 1, 2, []float32{0, 1, 0.2, 0.4, 0.6, 0.8})
	require.NoError(t, err)
	assert.Equal(t, []uint8{0, 51, 153, 255, 255, 102, 204, 255}, rgb.(*image.RGBA).Pix)
	for _, c := range [][4]int{{1, 2, 3, 5}, {0, 2, 3, 0}, {1, -2, -3, 6}, {2, 2, 3, 6}, {1 << 62, 2, 2, 4}} {
		_, err := ImageOf(c[0], c[1], c[2], make([]float32, c[3]))
		assert.ErrorContains(t, err, fmt.Sprintf("%d values cannot be %d channels", c[3], c[0]))
	}
}

func TestBatchSamples(t *testing.T) {
	images := []float32{0, 1, 1, 0, 0.2, 0.4, 0.6, 0.8} // two of one row, two columns, two channels
	got, err := BatchSamples(2, 1, 2, images, []uint8{0, 1, 1, 1}, []string{"a"})
	require.NoError(t, err)
	require.Len(t, got, 2)
	assert.Equal(t, []uint8{0, 255}, got[0].Image.(*image.Gray).Pix, "the first channel")
	assert.Equal(t, []uint8{51, 102}, got[1].Image.(*image.Gray).Pix)
	assert.Equal(t, []uint8{0, 1}, got[0].Target)
	assert.Equal(t, []uint8{1, 1}, got[1].Target)
	assert.Equal(t, []string{"a", ""}, []string{got[0].Caption, got[1].Caption})
	bare, err := BatchSamples(1, 2, 4, images, nil, nil)
	require.NoError(t, err)
	require.Len(t, bare, 1)
	assert.Nil(t, bare[0].Target)
	for _, c := range [][3]int{{3, 1, 2}, {0, 1, 2}, {1, -1, -2}, {1 << 62, 4, 4}} {
		_, err := BatchSamples(c[0], c[1], c[2], images, nil, nil)
		assert.ErrorContains(t, err, "8 values and 0 targets")
	}
	_, err = BatchSamples(1, 1, 2, images, make([]uint8, 7), nil)
	assert.ErrorContains(t, err, "7 targets")
}

package report

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"

	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"gonum.org/v1/plot/font/liberation"

	"github.com/hcunet/hcunet/internal/atomicfile"
)

// A Sample is one row of the sample picture.
type Sample struct {
	Caption   string      // such as the file name and the Dice
	Image     *image.Gray // the film
	Target    *image.Gray // the mask, not 0 where the finding is; nil if it is not known
	Prob      []float32   // probabilities in [0, 1], row-major, of the image's size
	Threshold float64     // above it a pixel is predicted; 0 means 0.5
}

// SampleOptions say how the sample picture is laid out.
type SampleOptions struct {
	Title string
	Cell  int // pixels of a cell's longer side; 0 means 256
}

const (
	samplePad  = 14
	captionRow = 24
	headRow    = 28
)

// maxSampleSide bounds what Samples draws: a picture of a thousand rows helps
// nobody and takes gigabytes.
const maxSampleSide = 30_000

// Samples draws rows of film, target and prediction side by side as a PNG file:
// the target as a green area, the prediction as an orange one that is stronger
// where the probability is higher, outlined where it crosses the threshold, with
// the target's outline for comparison. A film is enlarged by pixel repeat or reduced to fit its cell. An
// image, mask or prediction whose sizes differ is an error that names the row.
func Samples(path string, samples []Sample, o *SampleOptions) error {
	var opt SampleOptions
	if o != nil {
		opt = *o
	}
	if opt.Cell <= 0 {
		opt.Cell = 256
	}
	if len(samples) == 0 {
		return errors.New("report: no samples to draw")
	}
	cellW, rows := 0, 0
	for i, s := range samples {
		if err := s.check(); err != nil {
			return fmt.Errorf("report: sample %d (%s): %w", i, s.Caption, err)
		}
		w, h := fit(s.Image.Bounds().Size(), opt.Cell)
		cellW, rows = max(cellW, w), rows+h+captionRow+samplePad
	}
	top := samplePad
	if opt.Title != "" {
		top += headRow
	}
	width := samplePad + 3*(cellW+samplePad)
	height := top + headRow + rows
	if width > maxSampleSide || height > maxSampleSide {
		return fmt.Errorf("report: %d samples make a picture of %dx%d pixels; draw fewer or smaller ones", len(samples), width, height)
	}
	small, bold, err := faces()
	if err != nil {
		return err
	}
	page := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.Draw(page, page.Bounds(), image.White, image.Point{}, draw.Src)
	column := func(k int) int { return samplePad + k*(cellW+samplePad) }
	if opt.Title != "" {
		write(page, bold, opt.Title, samplePad, samplePad+16, width-2*samplePad, ink)
	}
	for k, name := range []string{"image", "target", "prediction"} {
		write(page, bold, name, column(k), top+16, cellW, ink)
	}
	y := top + headRow
	for _, s := range samples {
		w, h := fit(s.Image.Bounds().Size(), opt.Cell)
		cell := func(k int) image.Rectangle { return image.Rect(column(k), y, column(k)+w, y+h) }
		s.paint(page, cell(0), s.film)
		s.paint(page, cell(1), s.withTarget)
		s.outline(page, cell(1), s.inTarget, green)
		s.paint(page, cell(2), s.withPrediction)
		s.outline(page, cell(2), s.inTarget, green)
		s.outline(page, cell(2), s.predicted, amber)
		write(page, small, s.Caption, samplePad, y+h+17, width-2*samplePad, grey)
		y += h + captionRow + samplePad
	}
	return atomicfile.Write(path, func(w io.Writer) error { return png.Encode(w, page) })
}

func (s Sample) check() error {
	if s.Image == nil || s.Image.Bounds().Empty() {
		return errors.New("there is no image")
	}
	size := s.Image.Bounds().Size()
	if s.Target != nil && s.Target.Bounds().Size() != size {
		return fmt.Errorf("the image is %v, the target %v", size, s.Target.Bounds().Size())
	}
	if s.Prob != nil && len(s.Prob) != size.X*size.Y {
		return fmt.Errorf("the image of %v needs %d probabilities, %d came", size, size.X*size.Y, len(s.Prob))
	}
	return nil
}

// fit returns the size of a picture whose longer side is cell pixels.
func fit(size image.Point, cell int) (w, h int) {
	long := max(size.X, size.Y)
	return max(size.X*cell/long, 1), max(size.Y*cell/long, 1)
}

// paint fills r with the colours that at gives for the film's pixels, the
// average of those that fall on one of the picture's.
func (s Sample) paint(page *image.RGBA, r image.Rectangle, at func(x, y int) color.RGBA) {
	size := s.Image.Bounds().Size()
	for y := range r.Dy() {
		y0, y1 := span(y, r.Dy(), size.Y)
		for x := range r.Dx() {
			x0, x1 := span(x, r.Dx(), size.X)
			var sum [3]int
			for v := y0; v < y1; v++ {
				for u := x0; u < x1; u++ {
					c := at(u, v)
					sum[0] += int(c.R)
					sum[1] += int(c.G)
					sum[2] += int(c.B)
				}
			}
			n := (x1 - x0) * (y1 - y0)
			page.SetRGBA(r.Min.X+x, r.Min.Y+y, color.RGBA{uint8(sum[0] / n), uint8(sum[1] / n), uint8(sum[2] / n), 255})
		}
	}
}

// span returns the source pixels [lo, hi), at least one, under pixel i of n.
func span(i, n, source int) (lo, hi int) {
	lo = i * source / n
	return lo, max((i+1)*source/n, lo+1)
}

func (s Sample) film(x, y int) color.RGBA {
	v := s.Image.GrayAt(s.Image.Rect.Min.X+x, s.Image.Rect.Min.Y+y).Y
	return color.RGBA{v, v, v, 255}
}

func (s Sample) withTarget(x, y int) color.RGBA {
	if !s.inTarget(x, y) {
		return s.film(x, y)
	}
	return blend(s.film(x, y), green, 0.4)
}

func (s Sample) withPrediction(x, y int) color.RGBA {
	if s.Prob == nil {
		return s.film(x, y)
	}
	return blend(s.film(x, y), amber, 0.55*float64(s.Prob[y*s.Image.Rect.Dx()+x]))
}

func (s Sample) inTarget(x, y int) bool {
	return s.Target != nil && s.Target.GrayAt(s.Target.Rect.Min.X+x, s.Target.Rect.Min.Y+y).Y != 0
}

func (s Sample) predicted(x, y int) bool {
	threshold := s.Threshold
	if threshold == 0 {
		threshold = 0.5
	}
	return s.Prob != nil && float64(s.Prob[y*s.Image.Rect.Dx()+x]) > threshold
}

// outline draws a line of one pixel of the picture just inside the area of the
// film that in describes. The border of the film is no edge.
func (s Sample) outline(page *image.RGBA, r image.Rectangle, in func(x, y int) bool, c color.RGBA) {
	size := s.Image.Bounds().Size()
	inside := func(x, y int) bool { return in((2*x+1)*size.X/(2*r.Dx()), (2*y+1)*size.Y/(2*r.Dy())) }
	for y := range r.Dy() {
		for x := range r.Dx() {
			if inside(x, y) && (x > 0 && !inside(x-1, y) || x < r.Dx()-1 && !inside(x+1, y) ||
				y > 0 && !inside(x, y-1) || y < r.Dy()-1 && !inside(x, y+1)) {
				page.SetRGBA(r.Min.X+x, r.Min.Y+y, c)
			}
		}
	}
}

// blend mixes part of b into a; a part outside [0, 1], NaN too, is cut to it.
func blend(a, b color.RGBA, part float64) color.RGBA {
	if !(part > 0) {
		return a
	}
	part = min(part, 1)
	mix := func(a, b uint8) uint8 { return uint8(float64(a) + part*(float64(b)-float64(a)) + 0.5) }
	return color.RGBA{mix(a.R, b.R), mix(a.G, b.G), mix(a.B, b.B), 255}
}

// faces returns the text and the heading face.
func faces() (small, bold font.Face, err error) {
	for _, f := range liberation.Collection() {
		if f.Font.Variant != "Sans" || f.Font.Style != font.StyleNormal {
			continue
		}
		switch f.Font.Weight {
		case font.WeightNormal:
			small, err = opentype.NewFace(f.Face, &opentype.FaceOptions{Size: 13, DPI: 72, Hinting: font.HintingFull})
		case font.WeightBold:
			bold, err = opentype.NewFace(f.Face, &opentype.FaceOptions{Size: 15, DPI: 72, Hinting: font.HintingFull})
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if small == nil || bold == nil {
		return nil, nil, errors.New("report: the Liberation Sans font is missing")
	}
	return small, bold, nil
}

// write draws text with its baseline at y, cut with an ellipsis to the width.
func write(page draw.Image, face font.Face, text string, x, y, width int, c color.Color) {
	if font.MeasureString(face, text).Ceil() > width {
		r := []rune(text)
		for len(r) > 0 && font.MeasureString(face, string(r)+"…").Ceil() > width {
			r = r[:len(r)-1]
		}
		text = string(r) + "…"
	}
	d := font.Drawer{Dst: page, Src: image.NewUniform(c), Face: face, Dot: fixed.P(x, y)}
	d.DrawString(text)
}

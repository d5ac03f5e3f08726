package report

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"
	"slices"

	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"gonum.org/v1/plot/font/liberation"

	"github.com/hcunet/hcunet/internal/atomicfile"
)

// A Sample is an image with its masks. Masks are row-major class indices in the
// size of the image; class 0 is the background.
type Sample struct {
	Caption   string // for example the file name and the Dice
	Image     image.Image
	Target    []uint8 // nil if it is not known
	Predicted []uint8 // nil if there is none
}

// SampleOptions say how samples are drawn.
type SampleOptions struct {
	Title   string
	Classes []string // names of the classes, Classes[0] the background; for the legend if there are several
	Cell    int      // longer side of a cell in pixels; 0 means 256
}

const (
	samplePad  = 14
	captionRow = 24
	headRow    = 28
	dash       = 3
)

// The palette of the plots, but brighter, because contours are drawn on dark
// pictures.
var (
	predicted     = color.RGBA{255, 176, 0, 255}
	contourColors = []color.RGBA{
		{40, 224, 150, 255}, // green
		{255, 112, 67, 255}, // vermillion
		{110, 200, 255, 255},
		{236, 140, 200, 255},
		{255, 214, 64, 255},
		{90, 140, 255, 255},
	}
)

// maxSampleSide is the largest side of a picture: one with thousands of rows
// would take gigabytes and nobody could use it.
const maxSampleSide = 30_000

// Samples draws rows of image, target and prediction side by side as a PNG file.
// Masks are drawn as contours, so that the image inside stays visible; the
// contour of the target is also drawn under the prediction, dashed. With one
// class, the target is green and the prediction amber; several classes have their
// own colours and a legend. Images are enlarged by repeating pixels, or reduced,
// to fit the cell. If the sizes of an image and a mask differ, or a class has no
// name, the error names the row.
func Samples(path string, samples []Sample, o *SampleOptions) error {
	page, err := newSheet(samples, o, 1, 3)
	if err != nil {
		return err
	}
	for k, name := range []string{"image", "target", "prediction"} {
		write(page, page.bold, name, page.column(k), page.y+16, page.cellW, ink)
	}
	page.y += headRow
	for _, s := range samples {
		cell := func(k int) image.Rectangle { return page.cell(k, s.Image) }
		for k := range 3 {
			s.paint(page.RGBA, cell(k))
		}
		page.contours(cell(1), s, s.Target, true, 0)
		page.contours(cell(2), s, s.Target, true, dash)
		page.contours(cell(2), s, s.Predicted, false, 0)
		h := cell(0).Dy()
		write(page, page.small, s.Caption, samplePad, page.y+h+17, page.Rect.Dx()-2*samplePad, grey)
		page.y += h + captionRow + samplePad
	}
	return page.save(path)
}

// Grid draws samples, for example the first augmented batch, in a grid with
// that many columns as a PNG file. Each has the contours of its target and
// prediction, if it has them, and its caption below. See Samples for colours
// and errors.
func Grid(path string, samples []Sample, columns int, o *SampleOptions) error {
	columns = max(min(columns, len(samples)), 1)
	page, err := newSheet(samples, o, columns, columns)
	if err != nil {
		return err
	}
	for row := range slices.Chunk(samples, columns) {
		h := 0
		for k, s := range row {
			r := page.cell(k, s.Image)
			s.paint(page.RGBA, r)
			h = max(h, r.Dy())
			if s.Predicted == nil {
				page.contours(r, s, s.Target, true, 0)
				continue
			}
			page.contours(r, s, s.Target, true, dash)
			page.contours(r, s, s.Predicted, false, 0)
		}
		for k, s := range row {
			write(page, page.small, s.Caption, page.column(k), page.y+h+17, page.cellW, grey)
		}
		page.y += h + captionRow + samplePad
	}
	return page.save(path)
}

// ImageOf returns planes (channels, height, width) of values in [0, 1] as an
// image. With one or two channels the first one is shown in grey; with more the
// first three are red, green and blue. Values outside [0, 1] are clipped; NaN
// is black.
func ImageOf(channels, height, width int, values []float32) (image.Image, error) {
	if channels < 1 || height < 1 || width < 1 || len(values)/channels/height != width || len(values)%(channels*height) != 0 {
		return nil, fmt.Errorf("report: %d values cannot be %d channels of %d rows and %d columns", len(values), channels, height, width)
	}
	level := func(v float32) uint8 {
		if !(v > 0) {
			return 0
		}
		return uint8(math.Round(255 * float64(min(v, 1))))
	}
	n := height * width
	if channels < 3 {
		out := image.NewGray(image.Rect(0, 0, width, height))
		for i, v := range values[:n] {
			out.Pix[i] = level(v)
		}
		return out, nil
	}
	out := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range n {
		copy(out.Pix[4*i:], []uint8{level(values[i]), level(values[n+i]), level(values[2*n+i]), 255})
	}
	return out, nil
}

// BatchSamples returns the images of a batch as samples for Grid. images is
// (images, channels, height, width) with values in [0, 1]; targets are row-major
// class indices, or nil; there may be fewer captions than images.
func BatchSamples(channels, height, width int, images []float32, targets []uint8, captions []string) ([]Sample, error) {
	per := channels * height * width
	if channels < 1 || height < 1 || width < 1 || per/channels/height != width || len(images)%per != 0 ||
		targets != nil && len(targets) != len(images)/channels {
		return nil, fmt.Errorf("report: %d values and %d targets cannot be a batch of images of %d channels, %d rows and %d columns", len(images), len(targets), channels, height, width)
	}
	samples := make([]Sample, len(images)/per)
	for i := range samples {
		m, err := ImageOf(channels, height, width, images[i*per:(i+1)*per])
		if err != nil {
			return nil, err
		}
		samples[i].Image = m
		if targets != nil {
			samples[i].Target = targets[i*height*width : (i+1)*height*width]
		}
		if i < len(captions) {
			samples[i].Caption = captions[i]
		}
	}
	return samples, nil
}

// A sheet is a picture of cells that is being drawn.
type sheet struct {
	*image.RGBA
	small, bold font.Face
	long        int // longer side of a cell
	cellW       int
	y           int // where the next row begins
	oneClass    bool
	lineWidth   int
}

// newSheet checks the samples, allocates a picture for rows of perRow samples
// with that many cells, and writes title and legend.
func newSheet(samples []Sample, o *SampleOptions, perRow, cells int) (*sheet, error) {
	var opt SampleOptions
	if o != nil {
		opt = *o
	}
	if opt.Cell <= 0 {
		opt.Cell = 256
	}
	if len(samples) == 0 {
		return nil, errors.New("report: no samples to draw")
	}
	p := &sheet{long: opt.Cell, oneClass: len(opt.Classes) <= 2, lineWidth: max((opt.Cell+64)/128, 1), y: samplePad}
	height := samplePad
	for row := range slices.Chunk(samples, perRow) {
		tallest := 0
		for _, s := range row {
			if err := s.check(len(opt.Classes)); err != nil {
				i := slices.IndexFunc(samples, func(x Sample) bool { return x.Image == s.Image && x.Caption == s.Caption })
				return nil, fmt.Errorf("report: sample %d (%s): %w", i, s.Caption, err)
			}
			w, h := fit(s.Image.Bounds().Size(), opt.Cell)
			p.cellW, tallest = max(p.cellW, w), max(tallest, h)
		}
		height += tallest + captionRow + samplePad
		if height > maxSampleSide {
			break
		}
	}
	for _, there := range []bool{opt.Title != "", !p.oneClass, cells > perRow} {
		if there {
			height += headRow
		}
	}
	width := samplePad + cells*(p.cellW+samplePad)
	if width > maxSampleSide || height > maxSampleSide {
		return nil, fmt.Errorf("report: %d samples make a picture of more than %d pixels; draw fewer or smaller ones", len(samples), maxSampleSide)
	}
	var err error
	if p.small, p.bold, err = faces(); err != nil {
		return nil, err
	}
	p.RGBA = image.NewRGBA(image.Rect(0, 0, width, height))
	draw.Draw(p, p.Rect, image.White, image.Point{}, draw.Src)
	if opt.Title != "" {
		write(p, p.bold, opt.Title, samplePad, p.y+16, width-2*samplePad, ink)
		p.y += headRow
	}
	if !p.oneClass {
		p.legend(opt.Classes)
		p.y += headRow
	}
	return p, nil
}

// legend writes the names of the classes next to squares of their colours, as
// many as fit.
func (p *sheet) legend(classes []string) {
	x := samplePad
	for i, name := range classes[1:] {
		w := font.MeasureString(p.small, name).Ceil()
		if x+18+w > p.Rect.Dx()-samplePad {
			write(p, p.small, "…", x, p.y+15, 20, grey)
			return
		}
		draw.Draw(p, image.Rect(x, p.y+4, x+12, p.y+16), image.NewUniform(classColor(i+1)), image.Point{}, draw.Src)
		write(p, p.small, name, x+18, p.y+15, w+1, ink)
		x += 18 + w + 22
	}
}

func (p *sheet) column(k int) int { return samplePad + k*(p.cellW+samplePad) }

// cell returns the rectangle of an image in column k of the row.
func (p *sheet) cell(k int, m image.Image) image.Rectangle {
	w, h := fit(m.Bounds().Size(), p.long)
	return image.Rect(p.column(k), p.y, p.column(k)+w, p.y+h)
}

func (p *sheet) save(path string) error {
	return atomicfile.Write(path, func(w io.Writer) error { return png.Encode(w, p.RGBA) })
}

// contours draws the outlines of the classes of a mask, inside their areas. If
// dash is not 0, lines are dashed; dash is the length in line widths.
func (p *sheet) contours(r image.Rectangle, s Sample, mask []uint8, target bool, dash int) {
	if mask == nil {
		return
	}
	size := s.Image.Bounds().Size()
	class := func(x, y int) uint8 {
		u, v := (2*x+1)*size.X/(2*r.Dx()), (2*y+1)*size.Y/(2*r.Dy())
		return mask[v*size.X+u]
	}
	for y := range r.Dy() {
		for x := range r.Dx() {
			c := class(x, y)
			if c == 0 || dash > 0 && (x+y)/(dash*p.lineWidth)%2 == 1 || !p.atEdge(r, class, c, x, y) {
				continue
			}
			p.SetRGBA(r.Min.X+x, r.Min.Y+y, p.color(c, target))
		}
	}
}

// atEdge reports whether there is another class within the width of a line
// above, below, left or right. The border of the image is not an edge.
func (p *sheet) atEdge(r image.Rectangle, class func(x, y int) uint8, c uint8, x, y int) bool {
	for d := 1; d <= p.lineWidth; d++ {
		if x >= d && class(x-d, y) != c || x+d < r.Dx() && class(x+d, y) != c ||
			y >= d && class(x, y-d) != c || y+d < r.Dy() && class(x, y+d) != c {
			return true
		}
	}
	return false
}

func (p *sheet) color(class uint8, target bool) color.RGBA {
	if p.oneClass && !target {
		return predicted
	}
	return classColor(int(class))
}

// classColor returns the colour of a class from 1 on.
func classColor(class int) color.RGBA {
	return contourColors[(class-1)%len(contourColors)]
}

func (s Sample) check(classes int) error {
	if s.Image == nil || s.Image.Bounds().Empty() {
		return errors.New("there is no image")
	}
	size := s.Image.Bounds().Size()
	for _, m := range []struct {
		name string
		mask []uint8
	}{{"target", s.Target}, {"prediction", s.Predicted}} {
		if m.mask == nil {
			continue
		}
		if len(m.mask) != size.X*size.Y {
			return fmt.Errorf("the %s has %d pixels, the image of %v %d", m.name, len(m.mask), size, size.X*size.Y)
		}
		if top := slices.Max(m.mask); int(top) >= max(classes, 2) {
			return fmt.Errorf("the %s has a class %d, there are names of %d", m.name, top, max(classes, 2))
		}
	}
	return nil
}

// fit returns the size of a picture whose longer side is cell pixels.
func fit(size image.Point, cell int) (w, h int) {
	long := max(size.X, size.Y)
	return max(size.X*cell/long, 1), max(size.Y*cell/long, 1)
}

// paint fills r with the image; each pixel is the average of the source pixels
// that it covers.
func (s Sample) paint(page *image.RGBA, r image.Rectangle) {
	b := s.Image.Bounds()
	for y := range r.Dy() {
		y0, y1 := span(y, r.Dy(), b.Dy())
		for x := range r.Dx() {
			x0, x1 := span(x, r.Dx(), b.Dx())
			var sum [3]int
			for v := y0; v < y1; v++ {
				for u := x0; u < x1; u++ {
					red, g, blue, _ := s.Image.At(b.Min.X+u, b.Min.Y+v).RGBA()
					sum[0] += int(red >> 8)
					sum[1] += int(g >> 8)
					sum[2] += int(blue >> 8)
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

// write draws text with its baseline at y. Text that is wider than width is cut
// and ends with an ellipsis.
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

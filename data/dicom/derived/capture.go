package derived

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"io"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"

	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/dicom/internal/part10"
)

// WriteCapture writes the film as a Secondary Capture in colour, with the
// outlines of the masks drawn on it and Notice at the bottom. Any viewer can
// show it.
//
// It returns an error if film has no pixels; other errors are those of
// WriteSegmentation.
//
// Burned In Annotation (0028,0301) says whether the pixels show who the patient
// is. The outlines do not, so it is NO if it is NO in the film. If the film does
// not have it, nobody has checked the pixels, and it is YES.
func WriteCapture(w io.Writer, film *dicom.Film, masks []Mask, o *Options) error {
	if err := check(film, masks, o); err != nil {
		return err
	}
	if len(film.Pix8)+len(film.Pix16) != film.Rows*film.Columns {
		return fmt.Errorf("derived: the film has %d pixels, want %dx%d: read it with its pixels", len(film.Pix8)+len(film.Pix16), film.Columns, film.Rows)
	}
	set := new(part10.Set)
	instance := uid(what("capture", film, masks, o)...)
	common(set, film, o, secondaryCapture, instance, "OT", "Overlay, "+Notice)
	set.Text(0x00080008, "CS", `DERIVED\SECONDARY`)
	set.Text(0x00080064, "CS", "WSD")
	set.Text(0x00200060, "CS", "") // laterality: not known
	set.Text(0x00082111, "ST", "Outlines drawn by "+o.Algorithm+" "+o.Version+"; "+o.notice())
	set.Items(0x00081115, referencedSeries(film))
	set.Items(0x00082112, source(film))
	set.Short(0x00280002, 3)
	set.Text(0x00280004, "CS", "RGB")
	set.Short(0x00280006, 0)
	set.Short(0x00280010, film.Rows)
	set.Short(0x00280011, film.Columns)
	if film.Spacing == dicom.PixelSpacing {
		set.Text(0x00280030, "DS", part10.Decimals([]float64{film.RowSpacing, film.ColumnSpacing}))
	}
	set.Short(0x00280100, 8)
	set.Short(0x00280101, 8)
	set.Short(0x00280102, 7)
	set.Short(0x00280103, 0)
	burned := "YES"
	if film.BurnedIn == "NO" {
		burned = "NO"
	}
	set.Text(0x00280301, "CS", burned)
	if !film.Lossy {
		set.Text(0x00282110, "CS", "00")
	}
	img := Overlay(film.Gray(), masks, o.Remark)
	rgb := make([]byte, 0, 3*film.Rows*film.Columns+1)
	for i := 0; i < len(img.Pix); i += 4 {
		rgb = append(rgb, img.Pix[i:i+3]...)
	}
	set.Text(0x7FE00010, "OB", string(rgb))
	_, err := w.Write(set.File(secondaryCapture, instance, part10.ExplicitLittleEndian))
	return err
}

// Overlay returns the picture with the outline of each mask in its colour, and
// Notice in the lower left corner, below the remark if there is one. The outline
// lies inside the mask; its width is 1/400 of the picture's larger side. The masks
// must have the size of the picture.
func Overlay(picture *image.Gray, masks []Mask, remark string) *image.RGBA {
	w, h := picture.Rect.Dx(), picture.Rect.Dy()
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(out, out.Rect, picture, picture.Rect.Min, draw.Src)
	width := max(1, (max(w, h)+200)/400)
	for _, m := range masks {
		c := m.Segment.Color
		c.A = 255
		for i, edge := range outline(m.Image, width) {
			if edge {
				out.SetRGBA(i%w, i/w, c)
			}
		}
	}
	lines := []string{Notice}
	if remark != "" {
		lines = append(lines, remark)
	}
	write(out, lines)
	return out
}

// outline returns for each pixel of m whether it is inside the mask and, in its
// row or its column, at most width away from a pixel outside or from the border
// of the picture.
func outline(m *image.Gray, width int) []bool {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	edge := make([]bool, w*h)
	// scan goes through n pixels from i on, step apart, and marks the first width
	// pixels of each run inside the mask.
	scan := func(i, step, n int) {
		run := 0
		for range n {
			if m.Pix[i/w*m.Stride+i%w] == 0 {
				run = 0
			} else if run++; run <= width {
				edge[i] = true
			}
			i += step
		}
	}
	for y := range h {
		scan(y*w, 1, w)
		scan(y*w+w-1, -1, w)
	}
	for x := range w {
		scan(x, w, h)
		scan((h-1)*w+x, -w, h)
	}
	return edge
}

// write writes lines in the lower left corner, the lowest first. The letters of all of
// them are as large as is readable while the longest line takes three fifths of the
// width; if even the smallest ones do not fit, the text is cut.
func write(out *image.RGBA, lines []string) {
	face := basicfont.Face7x13
	longest := 0
	for _, text := range lines {
		longest = max(longest, face.Advance*len(text))
	}
	w, h := out.Rect.Dx(), out.Rect.Dy()
	times := max(1, min(3*w/(5*longest), h/(20*face.Height)))
	for i, text := range lines {
		small := image.NewAlpha(image.Rect(0, 0, face.Advance*len(text), face.Height))
		d := font.Drawer{Dst: small, Src: image.Opaque, Face: face, Dot: fixed.P(0, face.Ascent)}
		d.DrawString(text)
		left, top := 2*times, h-(i+1)*(face.Height+2)*times
		for y := range small.Rect.Dy() * times {
			for x := range small.Rect.Dx() * times {
				c := color.RGBA{0, 0, 0, 255} // white letters on black, because films can be white here
				if small.AlphaAt(x/times, y/times).A > 0 {
					c = color.RGBA{255, 255, 255, 255}
				}
				out.SetRGBA(left+x, top+y, c)
			}
		}
	}
}

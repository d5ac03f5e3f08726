package derived

import (
	"fmt"
	"image/color"
	"io"
	"math"

	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/dicom/internal/part10"
)

// WriteSegmentation writes the masks of a film as a DICOM Segmentation of one
// bit, with one segment and one frame per mask, numbered from 1. The film needs
// no pixels (it may be read with dicom.Options.HeaderOnly).
//
// It returns the errors of w, and an error that names what is wrong with film,
// masks or options.
func WriteSegmentation(w io.Writer, film *dicom.Film, masks []Mask, o *Options) error {
	if err := check(film, masks, o); err != nil {
		return err
	}
	set := new(part10.Set)
	instance := uid(what("segmentation", film, masks, o)...)
	common(set, film, o, segmentation, instance, "SEG", "Segmentation, "+Notice)
	set.Text(0x00080008, "CS", `DERIVED\PRIMARY`)
	set.Items(0x00081115, referencedSeries(film))

	set.Short(0x00280002, 1)
	set.Text(0x00280004, "CS", "MONOCHROME2")
	set.Text(0x00280008, "IS", fmt.Sprint(len(masks)))
	set.Short(0x00280010, film.Rows)
	set.Short(0x00280011, film.Columns)
	set.Short(0x00280100, 1)
	set.Short(0x00280101, 1)
	set.Short(0x00280102, 0)
	set.Short(0x00280103, 0)
	if !film.Lossy {
		set.Text(0x00282110, "CS", "00")
	}

	set.Text(0x00620001, "CS", "BINARY")
	set.Text(0x00620013, "CS", overlap(masks))
	set.Text(0x00700080, "CS", "SEGMENTATION")
	set.Text(0x00700081, "LO", Notice)
	set.Text(0x00700084, "PN", "")
	var segments []*part10.Set
	for i, m := range masks {
		segments = append(segments, segment(i+1, &m.Segment, o))
	}
	set.Items(0x00620002, segments...)

	organization := uid("dimensions", instance)
	dimensions(set, organization, film)
	shared := new(part10.Set)
	if located(film) && film.Spacing == dicom.PixelSpacing && film.SliceThickness > 0 { // not for radiographs: highdicom needs the thickness to read it
		measures := new(part10.Set)
		measures.Text(0x00180050, "DS", part10.Decimals([]float64{film.SliceThickness}))
		measures.Text(0x00280030, "DS", part10.Decimals([]float64{film.RowSpacing, film.ColumnSpacing}))
		shared.Items(0x00289110, measures)
	}
	position := plane(shared, film, o)
	set.Items(0x52009229, shared)
	var frames []*part10.Set
	for i := range masks {
		frames = append(frames, frame(i+1, film, position))
	}
	set.Items(0x52009230, frames...)
	set.Raw(0x7FE00010, "OB", pack(film, masks))
	_, err := w.Write(set.File(segmentation, instance, part10.ExplicitLittleEndian))
	return err
}

// referencedSeries returns a reference to the series of the film and to the
// film. Viewers use it to find the film.
func referencedSeries(film *dicom.Film) *part10.Set {
	in := new(part10.Set)
	in.Text(0x00081150, "UI", film.SOPClassUID)
	in.Text(0x00081155, "UI", film.SOPInstanceUID)
	s := new(part10.Set)
	s.Text(0x0020000E, "UI", film.SeriesUID)
	s.Items(0x0008114A, in)
	return s
}

// segment describes segment number n (DICOM PS3.3, C.8.20.2).
func segment(n int, seg *Segment, o *Options) *part10.Set {
	s := new(part10.Set)
	s.Short(0x00620004, n)
	s.Text(0x00620005, "LO", seg.Label)
	s.Text(0x00620006, "ST", o.notice())
	s.Text(0x00620008, "CS", "AUTOMATIC")
	s.Text(0x00620009, "LO", o.Algorithm)
	algorithm := new(part10.Set)
	code(0x0066002F, Code{"123110", "DCM", "Artificial Intelligence"})(algorithm)
	algorithm.Text(0x00660031, "LO", o.Version)
	algorithm.Text(0x00660036, "LO", o.Algorithm)
	s.Items(0x00620007, algorithm)
	code(0x00620003, seg.Category)(s)
	property := new(part10.Set)
	property.Text(0x00080100, "SH", seg.Type.Value)
	property.Text(0x00080102, "SH", seg.Type.Scheme)
	property.Text(0x00080104, "LO", seg.Type.Meaning)
	if seg.Modifier != (Code{}) {
		code(0x00620011, seg.Modifier)(property)
	}
	s.Items(0x0062000F, property)
	lab := cielab(seg.Color)
	s.Short(0x0062000D, lab[0], lab[1], lab[2])
	return s
}

// dimensions adds the attributes in which frames differ: the segment, and in a
// frame of reference also the position.
func dimensions(set *part10.Set, organization string, film *dicom.Film) {
	org := new(part10.Set)
	org.Text(0x00209164, "UI", organization)
	set.Items(0x00209221, org)
	index := func(pointer, group uint32, label string) *part10.Set {
		s := new(part10.Set)
		s.Text(0x00209164, "UI", organization)
		s.Tag(0x00209165, pointer)
		s.Tag(0x00209167, group)
		s.Text(0x00209421, "LO", label)
		return s
	}
	all := []*part10.Set{index(0x0062000B, 0x0062000A, "Referenced Segment Number")}
	if located(film) {
		all = append(all, index(0x00200032, 0x00209113, "Image Position Patient"))
	}
	set.Items(0x00209222, all...)
	if located(film) {
		set.Text(0x00200052, "UI", film.FrameOfReferenceUID)
		set.Text(0x00201040, "LO", text(film.PositionReference))
	}
}

// plane adds the orientation of the frames to shared and returns their
// position, or nil if it is not written. See Options.NoPlane.
func plane(shared *part10.Set, film *dicom.Film, o *Options) []float64 {
	position, orientation := []float64{0, 0, 0}, []float64{1, 0, 0, 0, 1, 0}
	switch {
	case located(film):
		position, orientation = film.Position, film.Orientation
	case o.NoPlane:
		return nil
	}
	s := new(part10.Set)
	s.Text(0x00200037, "DS", part10.Decimals(orientation))
	shared.Items(0x00209116, s)
	return position
}

// frame describes the frame of segment n (C.7.6.16.2). It refers to its segment
// even if there is only one frame, because readers look for it here. The source
// film is named here and nowhere else, because dcmjs matches source images
// outside the frames to the frames by their order.
func frame(n int, film *dicom.Film, position []float64) *part10.Set {
	s := new(part10.Set)
	derivation := new(part10.Set)
	derivation.Items(0x00082112, source(film))
	code(0x00089215, Code{"113076", "DCM", "Segmentation"})(derivation)
	s.Items(0x00089124, derivation)

	content := new(part10.Set)
	if located(film) {
		content.Long(0x00209157, n, 1)
	} else {
		content.Long(0x00209157, n)
	}
	s.Items(0x00209111, content)
	if position != nil {
		p := new(part10.Set)
		p.Text(0x00200032, "DS", part10.Decimals(position))
		s.Items(0x00209113, p)
	}
	segment := new(part10.Set)
	segment.Short(0x0062000B, n)
	s.Items(0x0062000A, segment)
	return s
}

// pack returns the pixels of all frames, one bit per pixel, the first in the
// lowest bit. Frames follow each other without padding bits (DICOM PS3.5, 8.1.1).
func pack(film *dicom.Film, masks []Mask) []byte {
	n := film.Rows * film.Columns
	b := make([]byte, (n*len(masks)+15)/16*2)
	for k, m := range masks {
		each(m.Image, func(i int, in bool) {
			if in {
				b[(k*n+i)/8] |= 1 << ((k*n + i) % 8)
			}
		})
	}
	return b
}

// overlap returns YES if a pixel belongs to two masks, else NO.
func overlap(masks []Mask) string {
	var seen []bool
	twice := false
	for _, m := range masks {
		each(m.Image, func(i int, in bool) {
			if i == len(seen) {
				seen = append(seen, false)
			}
			twice = twice || in && seen[i]
			seen[i] = seen[i] || in
		})
	}
	if twice {
		return "YES"
	}
	return "NO"
}

// cielab converts an sRGB colour to the CIELab of DICOM PS3.3, C.10.7.1.1. The
// white point is D65, that of sRGB, because viewers convert back with it.
func cielab(c color.RGBA) [3]int {
	linear := func(v uint8) float64 {
		if x := float64(v) / 255; x > 0.04045 {
			return math.Pow((x+0.055)/1.055, 2.4)
		} else {
			return x / 12.92
		}
	}
	r, g, b := linear(c.R), linear(c.G), linear(c.B)
	f := func(t float64) float64 {
		if t > 216.0/24389 {
			return math.Cbrt(t)
		}
		return (24389.0/27*t + 16) / 116
	}
	x := f((0.4124564*r + 0.3575761*g + 0.1804375*b) / 0.95047)
	y := f(0.2126729*r + 0.7151522*g + 0.0721750*b)
	z := f((0.0193339*r + 0.1191920*g + 0.9503041*b) / 1.08883)
	scale := func(v, lo, hi float64) int { return int(math.Round(65535 * min(max((v-lo)/(hi-lo), 0), 1))) }
	return [3]int{scale(116*y-16, 0, 100), scale(500*(x-y), -128, 127), scale(200*(y-z), -128, 127)}
}

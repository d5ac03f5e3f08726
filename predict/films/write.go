package films

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/dicom/derived"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/predict"
)

// findings writes findings.csv, with a line for each film and class.
func (w *writer) findings(films []*Film) error {
	notice := strings.Join(w.model.Notices(), "; ")
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	return atomicfile.Write(w.path("findings.csv"), func(to io.Writer) error {
		c := csv.NewWriter(to)
		c.Write([]string{"name", "file", "class", "positive", "pixels", "area_mm2", "x", "y", "width", "height",
			"highest_probability", "sum_of_probabilities", "mean_probability_in_mask", "film_width", "film_height", "warnings", "notice"})
		for _, f := range films {
			r := f.Result
			for _, d := range r.Findings {
				area := ""
				if d.Area > 0 {
					area = number(d.Area)
				}
				c.Write([]string{f.Name, f.Path, d.Class, strconv.FormatBool(d.Positive), strconv.Itoa(d.Pixels), area,
					strconv.Itoa(d.Box.X), strconv.Itoa(d.Box.Y), strconv.Itoa(d.Box.Width), strconv.Itoa(d.Box.Height),
					number(d.Highest), number(d.Sum), number(d.Mean), strconv.Itoa(r.Width), strconv.Itoa(r.Height),
					strings.Join(r.Warnings, "; "), notice})
			}
		}
		c.Flush()
		return c.Error()
	})
}

// failed writes failed.csv, the list of films that could not be predicted. If the list is
// empty, it removes an existing file.
func (w *writer) failed(films []*Film) error {
	path := w.path("failed.csv")
	if len(films) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return atomicfile.Write(path, func(to io.Writer) error {
		c := csv.NewWriter(to)
		c.Write([]string{"name", "file", "error"})
		for _, f := range films {
			c.Write([]string{f.Name, f.Path, f.Err.Error()})
		}
		c.Flush()
		return c.Error()
	})
}

// segments are the DICOM terms of classes by their names. Other classes get the general
// term "Tissue".
var segments = map[string]derived.Segment{
	"pneumothorax": derived.Pneumothorax,
	"lung":         derived.Lungs,
	"lungs":        derived.Lungs,
}

var colors = []color.RGBA{{255, 140, 0, 255}, {0, 170, 255, 255}, {120, 220, 0, 255}, {240, 80, 200, 255}, {250, 220, 0, 255}}

// masks returns the masks of a result for package derived; with all also the empty ones.
func masks(r *predict.Result, all bool) (m []derived.Mask) {
	for i, f := range r.Findings {
		if !f.Positive && !all {
			continue
		}
		segment, ok := segments[strings.ToLower(f.Class)]
		if !ok {
			segment = derived.Segment{
				Category: derived.Code{Value: "85756007", Scheme: "SCT", Meaning: "Tissue"},
				Type:     derived.Code{Value: "85756007", Scheme: "SCT", Meaning: "Tissue"},
				Color:    colors[i%len(colors)],
			}
			segment.Label = f.Class
		}
		m = append(m, derived.Mask{Segment: segment, Image: f.Mask})
	}
	return m
}

// remark returns the notice that must follow derived.Notice; "" if there is none.
func remark(r *predict.Result) string {
	if slices.Contains(r.Notices, predict.PhantomNotice) {
		return predict.PhantomNotice
	}
	return ""
}

// Overlay returns the film of a result with the outlines of its masks, each in the colour
// that the class has in DICOM objects, and with the result's notices.
func Overlay(r *predict.Result) *image.RGBA {
	return derived.Overlay(Gray(r.Film.Image), masks(r, false), remark(r))
}

// Gray returns an image with 8 bits and one channel, the mean of the channels of m.
func Gray(m *picture.Image) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, m.Width, m.Height))
	for i := range img.Pix {
		sum := 0.0
		for c := range m.Channels {
			sum += m.At(c*len(img.Pix) + i)
		}
		img.Pix[i] = uint8(255*sum/float64(m.Channels) + 0.5)
	}
	return img
}

// dicom writes the DICOM objects that the options ask for, if the film is DICOM.
func (w *writer) dicom(f *Film) error {
	if !w.opt.Segmentation && !w.opt.Capture {
		return nil
	}
	kind, err := data.KindOf(f.Path)
	if err != nil || kind != data.DICOMFilm {
		return err
	}
	film, err := dicom.Open(f.Path, &dicom.Options{ApplyVOI: w.model.Preparation.VOI})
	if err != nil {
		return err
	}
	name := w.model.Name
	if name == "" {
		name = "hcunet"
	}
	o := &derived.Options{Time: w.opt.Time, Algorithm: name, Version: w.version(), Remark: remark(f.Result)}
	for _, object := range []struct {
		wanted bool
		ending string
		write  func(io.Writer, *dicom.Film, []derived.Mask, *derived.Options) error
	}{
		{w.opt.Segmentation, ".seg.dcm", derived.WriteSegmentation},
		{w.opt.Capture, ".sc.dcm", derived.WriteCapture},
	} {
		if !object.wanted {
			continue
		}
		var b bytes.Buffer
		if err := object.write(&b, film, masks(f.Result, true), o); err != nil {
			return err
		}
		if err := atomicfile.WriteFile(w.path("dicom", f.Name+object.ending), b.Bytes()); err != nil {
			return &outError{err}
		}
	}
	return nil
}

// version returns the version of the model for DICOM objects: the first 16 digits of its
// digest, or "in memory" if it has none.
func (w *writer) version() string {
	if w.model.Digest == "" {
		return "in memory"
	}
	return w.model.Digest[:min(len(w.model.Digest), 16)]
}

// PNG encodes img as a PNG file with the notices in its text chunk "Comment".
//
// Source: PNG, third edition, 11.3.3.2.
func PNG(img image.Image, notices []string) ([]byte, error) {
	var b bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestSpeed} // files are a third larger, but take at most a third of the time
	if err := e.Encode(&b, img); err != nil {
		return nil, err
	}
	const header = 8 + 12 + 13 // signature and IHDR
	body := append([]byte("tEXtComment\x00"), strings.Join(notices, "; ")...)
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(body)-4))
	chunk = append(chunk, body...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(body))
	file := b.Bytes()
	return append(append(file[:header:header], chunk...), file[header:]...), nil
}

package predict

import (
	"encoding/json"
	"fmt"
	"image"
	"time"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/metric"
)

// A Result is what a model finds on a film. Its JSON has everything but the pixels.
type Result struct {
	Width    int  `json:"width"` // of the film, in pixels
	Height   int  `json:"height"`
	Positive bool `json:"positive"` // anything was found

	Findings []Finding `json:"findings"` // one for each class but the background

	// Prob are the probabilities (K, ProbHeight, ProbWidth), K as Task.Outputs says,
	// before any mask is made of them: of the prepared image, or with Tiles of the film.
	Prob       []float32 `json:"-"`
	ProbWidth  int       `json:"probability_width"`
	ProbHeight int       `json:"probability_height"`

	Timings  Timings  `json:"timings"`
	Warnings []string `json:"warnings"`
	Notices  []string `json:"notices"` // to be shown wherever the result is

	Film *data.Film `json:"-"`
}

// A Finding is what there is of one class.
type Finding struct {
	Class    string      `json:"class"`
	Positive bool        `json:"positive"` // there is a mask
	Mask     *image.Gray `json:"-"`        // of the film's size, 0 and 255

	Pixels int     `json:"pixels"`             // of the film
	Area   float64 `json:"area_mm2,omitempty"` // 0 where the size of a pixel is not known
	Box    Box     `json:"box"`                // around the mask

	// Of the probabilities: the highest one, their sum, and the mean of those in the
	// mask, which is 0 without one.
	Highest float64 `json:"highest_probability"`
	Sum     float64 `json:"sum_of_probabilities"`
	Mean    float64 `json:"mean_probability_in_mask"`
}

// A Box is a rectangle of a film's pixels, its corner counted from 0 at the top left.
// The zero Box is empty.
type Box struct {
	X      int `json:"x"`
	Y      int `json:"y"`
	Width  int `json:"width"`
	Height int `json:"height"`
}

// Timings say what a prediction took. Films that are computed together all have the
// time of their batch.
type Timings struct {
	Queued  time.Duration // for a place
	Read    time.Duration
	Prepare time.Duration
	Waited  time.Duration // for the engine, Compute included
	Compute time.Duration // by the engine
	Total   time.Duration
	Batch   int // images computed together
}

// MarshalJSON writes milliseconds.
func (t Timings) MarshalJSON() ([]byte, error) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return json.Marshal(struct {
		Queued  float64 `json:"queued_ms"`
		Read    float64 `json:"read_ms"`
		Prepare float64 `json:"prepare_ms"`
		Waited  float64 `json:"waited_ms"`
		Compute float64 `json:"compute_ms"`
		Total   float64 `json:"total_ms"`
		Batch   int     `json:"batch"`
	}{ms(t.Queued), ms(t.Read), ms(t.Prepare), ms(t.Waited), ms(t.Compute), ms(t.Total), t.Batch})
}

// Masks returns the masks of a film, 0 and 255, one for each class but the
// background: the operating point on the probabilities (K, Height, Width) of its
// image, and the way back to the film. Where the image is the film itself, g has the
// same sizes twice.
func (m *Model) Masks(prob []float32, g resize.Geometry) ([]*image.Gray, error) {
	if n := m.Task.Outputs() * g.Width * g.Height; len(prob) != n {
		return nil, fmt.Errorf("predict: %d probabilities for an image of %dx%d pixels with %d outputs; wanted %d", len(prob), g.Width, g.Height, m.Task.Outputs(), n)
	}
	return back(m.Point.Masks(prob, m.Task), g)
}

// back brings masks of zeros and ones from an image to its film.
func back(masks [][]uint8, g resize.Geometry) (films []*image.Gray, err error) {
	for _, mask := range masks {
		img := image.NewGray(image.Rect(0, 0, g.Width, g.Height))
		for i, v := range mask {
			img.Pix[i] = 255 * v
		}
		film, err := g.Back(img)
		if err != nil {
			return nil, err
		}
		films = append(films, film)
	}
	return films, nil
}

// result makes the result of a film's probabilities.
func (m *Model) result(film *data.Film, prob []float32, g resize.Geometry) (*Result, error) {
	small := m.Point.Masks(prob, m.Task)
	masks, err := back(small, g)
	if err != nil {
		return nil, err
	}
	r := &Result{
		Width: g.FilmWidth, Height: g.FilmHeight, Film: film,
		Prob: prob, ProbWidth: g.Width, ProbHeight: g.Height,
		Warnings: append([]string{}, film.Warnings...), Notices: m.Notices(),
	}
	area := g.Width * g.Height
	first := 0
	if m.Task.Output == data.Softmax {
		first = 1
	}
	for i, mask := range masks {
		f := Finding{Class: m.Task.Classes[i+1], Mask: mask}
		f.measure(prob[(first+i)*area:][:area], small[i])
		f.Area = float64(f.Pixels) * film.RowSpacing * film.ColumnSpacing
		r.Positive = r.Positive || f.Positive
		r.Findings = append(r.Findings, f)
	}
	switch {
	case !r.Positive:
	case film.Spacing == dicom.ImagerSpacing:
		r.Warnings = append(r.Warnings, "the size of a pixel is that at the detector: areas at the patient are smaller")
	case film.Spacing == dicom.NominalSpacing:
		r.Warnings = append(r.Warnings, "the size of a pixel is that on a scanned film, not at the patient")
	}
	return r, nil
}

// measure sets what follows from the mask of the film, the probabilities, and the
// mask of these.
func (f *Finding) measure(prob []float32, small []uint8) {
	box := image.Rectangle{}
	for y := range f.Mask.Rect.Dy() {
		row := f.Mask.Pix[y*f.Mask.Stride:][:f.Mask.Rect.Dx()]
		left, right := -1, 0
		for x, v := range row {
			if v != 0 {
				if left < 0 {
					left = x
				}
				right = x + 1
				f.Pixels++
			}
		}
		if left >= 0 {
			box = box.Union(image.Rect(left, y, right, y+1))
		}
	}
	f.Positive = f.Pixels > 0
	f.Box = Box{box.Min.X, box.Min.Y, box.Dx(), box.Dy()}

	inside, n := 0.0, 0
	for i, p := range prob {
		f.Highest = max(f.Highest, float64(p))
		if small[i] != 0 {
			inside += float64(p)
			n++
		}
	}
	f.Sum = metric.Sum(prob)
	if n > 0 {
		f.Mean = inside / float64(n)
	}
}

// Mask returns all masks as one, with the values of a mask file: 0 and 255 for a task
// of two classes, otherwise the numbers of the classes. Where masks overlap, the
// later class is seen.
func (r *Result) Mask() *image.Gray {
	all := image.NewGray(image.Rect(0, 0, r.Width, r.Height))
	for i, f := range r.Findings {
		value := uint8(i + 1)
		if len(r.Findings) == 1 {
			value = 255
		}
		for j, v := range f.Mask.Pix {
			if v != 0 {
				all.Pix[j] = value
			}
		}
	}
	return all
}

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

// A Result is the prediction for a film. Its JSON has everything but pixels and
// probabilities.
type Result struct {
	Width    int  `json:"width"` // of the film, in pixels
	Height   int  `json:"height"`
	Positive bool `json:"positive"` // whether any finding is positive

	Findings []Finding `json:"findings"` // one for each class but the background

	// Prob are the probabilities (K, ProbHeight, ProbWidth) from which the masks were
	// made; K is Task.Outputs. They belong to the prepared image, of Model.Size pixels a
	// side, or with Options.Tiles to the film itself.
	Prob       []float32 `json:"-"`
	ProbWidth  int       `json:"probability_width"`
	ProbHeight int       `json:"probability_height"`

	Timings  Timings  `json:"timings"`
	Warnings []string `json:"warnings"` // about the film and the measures of the findings
	Notices  []string `json:"notices"`  // must be shown with the result

	Film *data.Film `json:"-"`
}

// A Finding is the prediction for one class.
type Finding struct {
	Class    string      `json:"class"`
	Positive bool        `json:"positive"` // whether the mask has a pixel
	Mask     *image.Gray `json:"-"`        // of the film's size, with values 0 and 255

	Pixels int     `json:"pixels"`             // number of the film's pixels in the mask
	Area   float64 `json:"area_mm2,omitempty"` // area of the mask; 0 if the size of a pixel is not known
	Box    Box     `json:"box"`                // the smallest box around the mask

	// The highest probability of the class on the image of Result.Prob, the sum of its
	// probabilities there, and their mean inside the mask, 0 if the mask is empty.
	Highest float64 `json:"highest_probability"`
	Sum     float64 `json:"sum_of_probabilities"`
	Mean    float64 `json:"mean_probability_in_mask"`
}

// A Box is a rectangle of a film's pixels. X and Y are the column and row of its top left
// pixel, counted from 0. The zero Box is empty.
type Box struct {
	X      int `json:"x"`
	Y      int `json:"y"`
	Width  int `json:"width"`
	Height int `json:"height"`
}

// Timings are the durations of the parts of a prediction.
type Timings struct {
	Queued  time.Duration // waiting for a place in the queue
	Read    time.Duration // reading and decoding the film
	Prepare time.Duration // preparing the image, or all tiles
	Waited  time.Duration // from sending images to the engine until their results were there

	// Compute is the time that the engine computed the film's batch, together with any
	// other films in it. With Options.Tiles it is the sum over the batches that had tiles
	// of the film.
	Compute time.Duration

	Total time.Duration // the whole call
	Batch int           // number of images in the film's batch; with tiles, in the largest of its batches
}

// MarshalJSON writes the durations in milliseconds.
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

// Masks returns the masks of a film, with values 0 and 255, one for each class but the
// background. It applies the operating point to the probabilities (K, g.Height, g.Width)
// of the film's image and resizes the masks to the size of the film. If the probabilities
// are those of the film itself, g has the film's size as that of the image as well.
func (m *Model) Masks(prob []float32, g resize.Geometry) ([]*image.Gray, error) {
	if n := m.Task.Outputs() * g.Width * g.Height; len(prob) != n {
		return nil, fmt.Errorf("predict: %d probabilities for an image of %dx%d pixels with %d outputs; wanted %d", len(prob), g.Width, g.Height, m.Task.Outputs(), n)
	}
	return back(m.Point.Masks(prob, m.Task), g)
}

// back resizes masks of zeros and ones from an image to its film; the results have values
// 0 and 255.
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

// result returns the result for a film with the given probabilities.
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

// measure sets the fields of f that follow from f.Mask, the probabilities of the class,
// and small, the mask of the image of these probabilities.
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

// Mask returns one mask for all classes, with the values of a mask file: 0 and 255 if
// there is one class besides the background, otherwise the number of the class. Where
// masks overlap, the class with the higher number is kept.
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

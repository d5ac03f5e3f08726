package metric

import "fmt"

// A Metric measures predictions over the images of an epoch. The training loop
// calls Reset, then Add for each validation image, then Values, from one
// goroutine. [NewScores] returns a metric with the usual scores, [MeanOf] one
// made from a function of an image.
type Metric interface {
	// Reset forgets all images.
	Reset()
	// Add measures an image, which is valid only during the call. An error ends the
	// training.
	Add(im *Image) error
	// Values returns what was measured since the last Reset: always the same names in
	// the same order, and NaN if there was nothing to measure.
	Values() Values
}

// An Image is the prediction for one image, and its target.
type Image struct {
	Name          string // for messages
	Width, Height int
	Prob          []float32 // (channels, Height, Width), in [0, 1]
	Target        []uint8   // (Height, Width), class indices
	Spacing       Spacing   // of the pixels

	// First is the class of the first channel: 0 if the channels are a softmax over
	// all classes, 1 if they are sigmoids of all classes but the background.
	First int
}

// Check returns an error if the lengths of the slices do not match the size of the
// image.
func (im *Image) Check() error {
	area := im.Width * im.Height
	if im.Width < 1 || im.Height < 1 || len(im.Target) != area || len(im.Prob) == 0 || len(im.Prob)%area != 0 {
		return fmt.Errorf("metric: image %q of %dx%d has %d probabilities and %d target pixels", im.Name, im.Width, im.Height, len(im.Prob), len(im.Target))
	}
	if im.First != 0 && im.First != 1 {
		return fmt.Errorf("metric: image %q begins with class %d, want 0 or 1", im.Name, im.First)
	}
	return nil
}

// Class returns the probabilities of a class, nil if the image does not have
// them.
func (im *Image) Class(class uint8) []float32 {
	area := len(im.Target)
	at := (int(class) - im.First) * area
	if at < 0 || at+area > len(im.Prob) {
		return nil
	}
	return im.Prob[at : at+area : at+area]
}

// Argmax sets each pixel of mask to the class with the highest probability, the
// first one if several are equal. It panics if mask does not have the size of the
// image.
func (im *Image) Argmax(mask []uint8) {
	area := len(im.Target)
	mustMatch(area, len(mask))
	for i := range mask {
		best, class := im.Prob[i], im.First
		for c := 1; c*area < len(im.Prob); c++ {
			if p := im.Prob[c*area+i]; p > best {
				best, class = p, im.First+c
			}
		}
		mask[i] = uint8(class)
	}
}

// MeanOf returns a metric that is the mean of f over the images. Images for which f
// returns NaN are left out.
func MeanOf(name string, f func(im *Image) (float64, error)) Metric {
	return &meanOf{name: name, f: f}
}

type meanOf struct {
	name string
	f    func(im *Image) (float64, error)
	mean Mean
}

func (m *meanOf) Reset() { m.mean = Mean{} }

func (m *meanOf) Add(im *Image) error {
	if err := im.Check(); err != nil {
		return err
	}
	v, err := m.f(im)
	if err != nil {
		return fmt.Errorf("%s of image %q: %w", m.name, im.Name, err)
	}
	if v == v { // not NaN
		m.mean.Add(v, 1)
	}
	return nil
}

func (m *meanOf) Values() Values { return Values{{m.name, m.mean.Value()}} }

// KernelDice returns the notebook's training metric as "dice": the mean of
// [Overlap.KernelDice] of class 1.
func KernelDice(threshold float64, noise Noise) Metric {
	return MeanOf("dice", func(im *Image) (float64, error) {
		prob := im.Class(1)
		if prob == nil {
			return 0, fmt.Errorf("no probabilities of class 1")
		}
		return float64(Compare(prob, im.Target, 1, threshold, noise).KernelDice()), nil
	})
}

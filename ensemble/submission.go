package ensemble

import (
	"fmt"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/rle"
)

// A submission holds the masks of test images as runs.
type submission struct {
	model *predict.Model
	runs  rle.Options
	rows  [][]maskcsv.Row // of each class but the background
	masks []int           // images that have a mask of the class
}

func newSubmission(m *predict.Model, notebookRuns bool) *submission {
	classes := len(m.Task.Classes) - 1
	return &submission{
		model: m, runs: rle.Options{Empty: rle.Blank, Kernel: notebookRuns},
		rows: make([][]maskcsv.Row, classes), masks: make([]int, classes),
	}
}

// add adds an image: prob has the probabilities of all classes, and g says where the
// film lies in the image.
func (s *submission) add(name string, prob []float32, g resize.Geometry) error {
	masks, err := s.model.Masks(prob, g)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for c, mask := range masks {
		runs := rle.Encode(mask, &s.runs)
		s.rows[c] = append(s.rows[c], maskcsv.Row{ID: name, Runs: runs})
		if runs != "" {
			s.masks[c]++
		}
	}
	return nil
}

// save writes a file for each class, submission.csv if there is one class.
func (s *submission) save(o *folder) error {
	for c, rows := range s.rows {
		name := "submission.csv"
		if len(s.rows) > 1 {
			of, err := data.FileName("submission_" + s.model.Task.Classes[c+1])
			if err != nil {
				return err
			}
			name = of + ".csv"
		}
		if err := maskcsv.SaveSubmission(o.path("%s", name), rows); err != nil {
			return err
		}
	}
	return nil
}

package ensemble

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hcunet/hcunet/internal/atomicfile"
)

// Predictions are saved as in the notebook, in a numpy file: for each class but
// the background, 255 times the probability, rounded down, as bytes.

// npyHeader returns the header of a uint8 array.
//
// Source: numpy.lib.format, version 1.0.
func npyHeader(shape ...int) []byte {
	text := strings.ReplaceAll(fmt.Sprint(shape), " ", ", ")
	header := fmt.Sprintf("{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }", strings.Trim(text, "[]"))
	const before, align = 10, 64 // magic, version, length
	header += strings.Repeat(" ", align-(before+len(header)+1)%align) + "\n"
	b := append([]byte("\x93NUMPY\x01\x00"), 0, 0)
	binary.LittleEndian.PutUint16(b[8:], uint16(len(header)))
	return append(b, header...)
}

// predictionShape returns the shape of predictions: (images, rows, columns), or
// (images, classes, rows, columns) if there are several classes.
func predictionShape(images, classes, size int) []int {
	if classes == 1 {
		return []int{images, size, size}
	}
	return []int{images, classes, size, size}
}

// writePredictions writes predictions one by one: make must call add for each image,
// in order.
func (o *folder) writePredictions(of string, names []string, classes, size int, make func(add func(probs [][]float32) error) error) error {
	err := atomicfile.Write(o.path("preds_%s.npy", of), func(w io.Writer) error {
		if _, err := w.Write(npyHeader(predictionShape(len(names), classes, size)...)); err != nil {
			return err
		}
		var line []byte
		written := 0
		err := make(func(probs [][]float32) error {
			for _, prob := range probs {
				line = line[:0]
				for _, v := range prob {
					line = append(line, uint8(v*255))
				}
				if _, err := w.Write(line); err != nil {
					return err
				}
			}
			written++
			return nil
		})
		if err == nil && written != len(names) {
			err = fmt.Errorf("%d predictions for %d images", written, len(names))
		}
		return err
	})
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(o.path("items_%s.txt", of), []byte(strings.Join(names, "\n")+"\n"))
}

// readPrediction reads the saved probabilities of image i for each class.
func (o *folder) readPrediction(of string, i, images, classes, size int) ([][]uint8, error) {
	f, err := os.Open(o.path("preds_%s.npy", of))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	area := size * size
	all := make([]byte, classes*area)
	head := len(npyHeader(predictionShape(images, classes, size)...))
	if _, err := f.ReadAt(all, int64(head)+int64(i)*int64(len(all))); err != nil {
		return nil, fmt.Errorf("%s: image %d: %w", f.Name(), i, err)
	}
	probs := make([][]uint8, classes)
	for c := range probs {
		probs[c] = all[c*area : (c+1)*area]
	}
	return probs, nil
}

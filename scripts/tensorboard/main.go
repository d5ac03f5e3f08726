// Command tensorboard writes event files into a folder. check.py in this folder
// reads them with TensorBoard.
//
//	go run ./scripts/tensorboard FOLDER
package main

import (
	"fmt"
	"image"
	"os"

	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/report"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: tensorboard FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write writes the event files of a run that is stopped after 30 steps and
// continued from step 20.
func write(dir string) error {
	for _, part := range [][2]int64{{0, 30}, {20, 40}} {
		e, err := report.NewEvents(dir, &report.EventOptions{First: part[0]})
		if err != nil {
			return err
		}
		for step := part[0]; step < part[1]; step++ {
			v := 1 / float64(step+1)
			if step >= 20 && part[0] == 0 {
				v = -1 // to be forgotten
			}
			if err := e.Scalar("loss", step, v); err != nil {
				return err
			}
		}
		if part[0] == 0 {
			row := metric.Epoch{Epoch: 2, TrainLoss: 0.25, Rate: 0.001, Speed: 12.5, Values: metric.Values{{Name: "dice", Value: 0.75}}}
			if err := e.Epoch("fold 0/", row); err != nil {
				return err
			}
			m := image.NewGray(image.Rect(0, 0, 5, 3))
			m.Pix[7] = 200 // column 2 of row 1
			if err := e.Image("batch", 1, m); err != nil {
				return err
			}
		}
		if err := e.Close(); err != nil {
			return err
		}
	}
	return nil
}

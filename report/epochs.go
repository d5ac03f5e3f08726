package report

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// An Epoch is one row of the table that a training run prints: the losses as the
// training loop defines them, Dice in [0, 1] at the loop's threshold. A value
// that was not measured is NaN.
type Epoch struct {
	Phase     string // of the run, such as "frozen" or "full"
	Epoch     int    // counted from 0 in its phase
	TrainLoss float64
	ValidLoss float64
	Dice      float64
	Time      time.Duration
}

// The widths are fastai's, whose table the notebook prints.
const (
	headerFormat = "%-9s %-11s %-11s %-9s %s\n"
	rowFormat    = "%-9d %-11s %-11s %-9s %s\n"
)

func (e Epoch) writeRow(w io.Writer) error {
	_, err := fmt.Fprintf(w, rowFormat, e.Epoch, six(e.TrainLoss), six(e.ValidLoss), six(e.Dice), clock(e.Time))
	return err
}

func writeHeader(w io.Writer) error {
	_, err := fmt.Fprintf(w, headerFormat, "epoch", "train_loss", "valid_loss", "dice", "time")
	return err
}

// WriteTable prints epochs as the notebook's table: a header line, then epoch,
// train_loss, valid_loss, dice and time. A new phase gets a line with its name
// and a header of its own.
func WriteTable(w io.Writer, epochs []Epoch) error {
	for i, e := range epochs {
		if i == 0 || e.Phase != epochs[i-1].Phase {
			if e.Phase != "" {
				if _, err := fmt.Fprintln(w, e.Phase); err != nil {
					return err
				}
			}
			if err := writeHeader(w); err != nil {
				return err
			}
		}
		if err := e.writeRow(w); err != nil {
			return err
		}
	}
	return nil
}

var csvHeader = []string{"phase", "epoch", "train_loss", "valid_loss", "dice", "seconds"}

// WriteEpochs writes epochs as CSV with a header line; numbers are written so
// that ReadEpochs gives back exactly the same ones.
func WriteEpochs(w io.Writer, epochs []Epoch) error {
	c := csv.NewWriter(w)
	if err := c.Write(csvHeader); err != nil {
		return err
	}
	for _, e := range epochs {
		if err := c.Write([]string{
			e.Phase, strconv.Itoa(e.Epoch), exact(e.TrainLoss), exact(e.ValidLoss), exact(e.Dice), exact(e.Time.Seconds()),
		}); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// ReadEpochs reads what WriteEpochs wrote. An error names the line and column.
func ReadEpochs(r io.Reader) ([]Epoch, error) {
	c := csv.NewReader(r)
	c.FieldsPerRecord = len(csvHeader)
	var epochs []Epoch
	for first := true; ; first = false {
		rec, err := c.Read()
		if errors.Is(err, io.EOF) {
			return epochs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("report: epochs: %w", err)
		}
		if first {
			for i, want := range csvHeader {
				if rec[i] != want {
					return nil, fmt.Errorf("report: epochs: column %d is %q, wanted %q", i+1, rec[i], want)
				}
			}
			continue
		}
		e := Epoch{Phase: rec[0]}
		var seconds float64
		e.Epoch, err = strconv.Atoi(rec[1])
		for i, v := range []*float64{nil, nil, &e.TrainLoss, &e.ValidLoss, &e.Dice, &seconds} {
			if err == nil && v != nil {
				*v, err = strconv.ParseFloat(rec[i], 64)
			}
			if err != nil {
				line, _ := c.FieldPos(i)
				return nil, fmt.Errorf("report: epochs: line %d, %s: %w", line, csvHeader[max(i, 1)], err)
			}
		}
		e.Time = time.Duration(seconds*float64(time.Second) + 0.5)
		epochs = append(epochs, e)
	}
}

func exact(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// six prints a loss or a Dice as fastai does, and leaves out what was not
// measured.
func six(v float64) string {
	if v != v {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', 6, 64)
}

// clock prints a duration as mm:ss or h:mm:ss, cut to whole seconds.
func clock(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	if s < 3600 {
		return fmt.Sprintf("%02d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

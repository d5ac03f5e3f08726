package report

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/hcunet/hcunet/metric"
)

// cellWidth is that of a column of the printed table: fastai's, whose table the
// notebook prints, is 9, and 11 under the long names of the losses.
func cellWidth(name string) int { return max(len(name), 8) + 1 }

// tableWidth is that of the printed table in columns. What several classes measure
// beyond it is in the files alone.
const tableWidth = 100

// fitting returns e with those of the first values that the printed table has room for.
func fitting(e metric.Epoch) metric.Epoch {
	width := 0
	for _, name := range append(tableHeader(e)[:2], "h:mm:ss") {
		width += cellWidth(name) + 1
	}
	for i, v := range e.Values {
		if width += cellWidth(v.Name) + 1; width > tableWidth {
			e.Values = e.Values[:i]
			break
		}
	}
	return e
}

func tableHeader(e metric.Epoch) []string {
	cells := []string{"epoch", "train_loss"}
	for _, v := range e.Values {
		cells = append(cells, v.Name)
	}
	return append(cells, "time")
}

func tableRow(e metric.Epoch) []string {
	cells := []string{strconv.Itoa(e.Epoch), six(e.TrainLoss)}
	for _, v := range e.Values {
		cells = append(cells, six(v.Value))
	}
	return append(cells, clock(e.Time))
}

// writeCells writes a line of the table under the header's names.
func writeCells(w io.Writer, header, cells []string) error {
	var b strings.Builder
	for i, c := range cells {
		if i == len(cells)-1 {
			b.WriteString(c)
			break
		}
		fmt.Fprintf(&b, "%-*s ", cellWidth(header[i]), c)
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}

// WriteTable prints epochs as the notebook's table: a header line, then epoch,
// train_loss, what was measured, and time. A new phase, and new names of what was
// measured, get a header of their own, a phase a line with its name too. What has no
// room in 100 columns is left out.
func WriteTable(w io.Writer, epochs []metric.Epoch) error {
	for i, e := range epochs {
		e = fitting(e)
		phase := i == 0 || e.Phase != epochs[i-1].Phase
		if phase && e.Phase != "" {
			if _, err := fmt.Fprintln(w, e.Phase); err != nil {
				return err
			}
		}
		header := tableHeader(e)
		if phase || !sameNames(e, fitting(epochs[i-1])) {
			if err := writeCells(w, header, header); err != nil {
				return err
			}
		}
		if err := writeCells(w, header, tableRow(e)); err != nil {
			return err
		}
	}
	return nil
}

func sameNames(a, b metric.Epoch) bool {
	if len(a.Values) != len(b.Values) {
		return false
	}
	for i := range a.Values {
		if a.Values[i].Name != b.Values[i].Name {
			return false
		}
	}
	return true
}

// The columns of the CSV before and after what was measured.
var (
	csvFirst = []string{"phase", "epoch", "train_loss"}
	csvLast  = []string{"rate", "images_per_second", "seconds"}
)

// WriteEpochs writes epochs as CSV with a header line: phase, epoch, train_loss,
// what was measured, rate, images_per_second, seconds. Numbers are written so
// that ReadEpochs gives back exactly the same ones. Epochs that measured
// different things are an error.
func WriteEpochs(w io.Writer, epochs []metric.Epoch) error {
	c := csv.NewWriter(w)
	var header []string
	for i, e := range epochs {
		if !sameNames(e, epochs[0]) {
			return fmt.Errorf("report: epochs: epoch %d measured %v, the first one %v; write them to files of their own", i, names(e), names(epochs[0]))
		}
	}
	header = append(header, csvFirst...)
	if len(epochs) > 0 {
		header = append(header, names(epochs[0])...)
	}
	if err := c.Write(append(header, csvLast...)); err != nil {
		return err
	}
	for _, e := range epochs {
		row := []string{e.Phase, strconv.Itoa(e.Epoch), exact(e.TrainLoss)}
		for _, v := range e.Values {
			row = append(row, exact(v.Value))
		}
		if err := c.Write(append(row, exact(e.Rate), exact(e.Speed), exact(e.Time.Seconds()))); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

func names(e metric.Epoch) []string {
	out := make([]string, len(e.Values))
	for i, v := range e.Values {
		out[i] = v.Name
	}
	return out
}

// ReadEpochs reads what WriteEpochs wrote. An error names the line and column.
func ReadEpochs(r io.Reader) ([]metric.Epoch, error) {
	c := csv.NewReader(r)
	header, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("report: epochs: there is not even a header line")
	}
	if err != nil {
		return nil, fmt.Errorf("report: epochs: %w", err)
	}
	measured := len(header) - len(csvFirst) - len(csvLast)
	for i := range header {
		want := header[i]
		switch {
		case i < len(csvFirst):
			want = csvFirst[i]
		case measured < 0 || i >= len(csvFirst)+measured:
			want = csvLast[(i-len(csvFirst)-max(measured, 0))%len(csvLast)]
		}
		if header[i] != want || measured < 0 {
			return nil, fmt.Errorf("report: epochs: column %d of the header is %q, wanted %s, what was measured, %s", i+1, header[i], strings.Join(csvFirst, ", "), strings.Join(csvLast, ", "))
		}
	}
	var epochs []metric.Epoch
	for {
		rec, err := c.Read()
		if errors.Is(err, io.EOF) {
			return epochs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("report: epochs: %w", err)
		}
		e := metric.Epoch{Phase: rec[0]}
		var bad error
		number := func(i int) float64 {
			v, err := strconv.ParseFloat(rec[i], 64)
			if err != nil && bad == nil {
				line, _ := c.FieldPos(i)
				bad = fmt.Errorf("report: epochs: line %d, %s: %w", line, header[i], err)
			}
			return v
		}
		if e.Epoch, err = strconv.Atoi(rec[1]); err != nil {
			line, _ := c.FieldPos(1)
			return nil, fmt.Errorf("report: epochs: line %d, epoch: %w", line, err)
		}
		e.TrainLoss = number(2)
		for i := range measured {
			e.Values = append(e.Values, metric.Value{Name: header[3+i], Value: number(3 + i)})
		}
		e.Rate, e.Speed = number(3+measured), number(4+measured)
		e.Time = time.Duration(number(5+measured)*float64(time.Second) + 0.5)
		if bad != nil {
			return nil, bad
		}
		epochs = append(epochs, e)
	}
}

// WriteEpochLine writes an epoch as one line of JSON: a file of such lines grows
// with the run, and another program can follow it.
func WriteEpochLine(w io.Writer, e metric.Epoch) error { return json.NewEncoder(w).Encode(e) }

// maxLine bounds a line of JSON that is read.
const maxLine = 1 << 20

// ReadEpochLines reads the lines that WriteEpochLine wrote. A last line that the
// end of the file cuts, as a killed run leaves it, is left out; an error names
// the line.
func ReadEpochLines(r io.Reader) ([]metric.Epoch, error) {
	in := bufio.NewReaderSize(r, maxLine)
	var epochs []metric.Epoch
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		if err == io.EOF {
			return epochs, nil
		}
		if err == bufio.ErrBufferFull {
			return nil, fmt.Errorf("report: epochs: line %d has more than %d bytes, which no epoch has", n, maxLine)
		}
		if err != nil {
			return nil, fmt.Errorf("report: epochs: line %d: %w", n, err)
		}
		var e metric.Epoch
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("report: epochs: line %d: %w", n, err)
		}
		epochs = append(epochs, e)
	}
}

func exact(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// six prints a loss or a score as fastai does, and leaves out what was not
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

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

// cellWidth returns the width of a column of the printed table. The notebook
// prints fastai's table, where it is 9, and 11 for the long names of the
// losses.
func cellWidth(name string) int { return max(len(name), 8) + 1 }

// tableWidth is the width of the printed table in characters. Values of several
// classes that do not fit are only in the files.
const tableWidth = 100

// fitting returns e with as many of its first values as fit in the printed table.
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

// WriteTable prints epochs like the notebook's table: a header line, then the
// columns epoch, train_loss, the measured values, and time. A new phase gets a line
// with its name and a new header; new names of values also get a new header. Values
// that do not fit in 100 characters are left out.
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

// The columns of the CSV before and after the measured values.
var (
	csvFirst = []string{"phase", "epoch", "train_loss"}
	csvLast  = []string{"rate", "images_per_second", "seconds"}
)

// WriteEpochs writes epochs as CSV with a header line: phase, epoch, train_loss,
// the measured values, rate, images_per_second, seconds. ReadEpochs returns
// exactly the same numbers. WriteEpochs returns an error if two epochs have
// values of different names.
func WriteEpochs(w io.Writer, epochs []metric.Epoch) error {
	c := csv.NewWriter(w)
	var header []string
	for i, e := range epochs {
		if !sameNames(e, epochs[0]) {
			return fmt.Errorf("report: epochs: epoch %d measured %v, the first one %v; write them to separate files", i, names(e), names(epochs[0]))
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

// ReadEpochs reads what WriteEpochs wrote. An error names the line and the
// column.
func ReadEpochs(r io.Reader) ([]metric.Epoch, error) {
	c := csv.NewReader(r)
	header, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("report: epochs: the file is empty; wanted a header line")
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
			return nil, fmt.Errorf("report: epochs: column %d of the header is %q, wanted %s, the measured values, %s", i+1, header[i], strings.Join(csvFirst, ", "), strings.Join(csvLast, ", "))
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

// WriteEpochLine writes an epoch as one line of JSON. Another program can follow
// a file of such lines while it grows.
func WriteEpochLine(w io.Writer, e metric.Epoch) error { return json.NewEncoder(w).Encode(e) }

// maxLine is the longest line of JSON that is read.
const maxLine = 1 << 20

// ReadEpochLines reads the lines that WriteEpochLine wrote. If a killed run left
// the last line incomplete, that line is left out. An error names the line.
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

// six formats a loss or a score with six decimals, as fastai does; a value that
// was not measured gives "".
func six(v float64) string {
	if v != v {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', 6, 64)
}

// clock formats a duration as mm:ss or h:mm:ss, rounded down to whole seconds.
func clock(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	if s < 3600 {
		return fmt.Sprintf("%02d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

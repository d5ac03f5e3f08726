package report

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/hcunet/hcunet/metric"
)

// A Case is the result for one class on one image: a row of the table and of
// the CSV.
type Case struct {
	Fold      int    // the fold in which the image was held out
	Name      string // name of the image
	Patient   string // "" if it is not known
	Class     string // "" if there is only one class
	Overlap   metric.Overlap
	HD95      float64 // 95th percentile of the distances between the outlines; NaN if a mask is empty or it was not measured
	Surface   float64 // mean of these distances; NaN in the same cases
	Unit      string  // unit of both: "mm", or "px" if the spacing is not known
	Threshold float64 // the probability above which a pixel was predicted
}

var caseHeader = []string{"fold", "name", "patient", "class", "target_pixels", "predicted_pixels", "dice", "iou", "hausdorff95", "surface_distance", "unit", "threshold"}

// WriteCases writes a row per case and class as CSV with a header line. A value
// that was not measured is an empty field.
func WriteCases(w io.Writer, cases []Case) error {
	c := csv.NewWriter(w)
	if err := c.Write(caseHeader); err != nil {
		return err
	}
	measured := func(v float64) string {
		if math.IsNaN(v) {
			return ""
		}
		return exact(v)
	}
	for _, k := range cases {
		if err := c.Write([]string{
			strconv.Itoa(k.Fold), k.Name, k.Patient, k.Class, strconv.Itoa(k.Overlap.Target), strconv.Itoa(k.Overlap.Predicted),
			exact(k.Overlap.Dice()), exact(k.Overlap.IoU()), measured(k.HD95), measured(k.Surface), k.Unit, exact(k.Threshold),
		}); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// A Confusion counts cases by whether the target is empty and whether the
// prediction is empty, wherever in the image the pixels are.
type Confusion struct {
	BothEmpty  int // empty target, nothing predicted
	FalseAlarm int // empty target, something predicted
	Missed     int // target not empty, nothing predicted
	Found      int // target not empty, something predicted
}

// Confuse counts the cases of a class.
func Confuse(cases []Case, class string) Confusion {
	var c Confusion
	for _, k := range cases {
		if k.Class != class {
			continue
		}
		switch there, predicted := k.Overlap.Target > 0, k.Overlap.Predicted > 0; {
		case there && predicted:
			c.Found++
		case there:
			c.Missed++
		case predicted:
			c.FalseAlarm++
		default:
			c.BothEmpty++
		}
	}
	return c
}

// Table returns the counts as a table for the page. Rows without cases are left
// out.
func (c Confusion) Table() Table {
	t := Table{Header: []string{"cases", "nothing predicted", "something predicted"}}
	if c.BothEmpty+c.FalseAlarm > 0 {
		t.Rows = append(t.Rows, []string{"nothing there", strconv.Itoa(c.BothEmpty), strconv.Itoa(c.FalseAlarm)})
	}
	if c.Missed+c.Found > 0 {
		t.Rows = append(t.Rows, []string{"something there", strconv.Itoa(c.Missed), strconv.Itoa(c.Found)})
	}
	return t
}

// Extremes returns the indices of the n worst, the n median and the n best cases
// of a class. Each list goes from low to high Dice, and no case is in two lists.
// Cases where both masks are empty are left out.
func Extremes(cases []Case, class string, n int) (worst, median, best []int) {
	var order []int
	for i, k := range cases {
		if k.Class == class && k.Overlap.Target+k.Overlap.Predicted > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(cases[a].Overlap.Dice(), cases[b].Overlap.Dice()) })
	n = max(n, 0)
	worst = order[:min(n, len(order))]
	order = order[len(worst):]
	best = order[max(len(order)-n, 0):]
	order = order[:len(order)-len(best)]
	from := max((len(order)-n)/2, 0)
	return worst, order[from:min(from+n, len(order))], best
}

// maxPageCases is the largest number of cases in the table on the page.
const maxPageCases = 300

// caseTable returns a table of the cases of all classes, the worst first, and the
// number of its rows.
func caseTable(cases []Case) (t Table, shown int) {
	classes, patients, distances := false, false, false
	for _, k := range cases {
		classes = classes || k.Class != ""
		patients = patients || k.Patient != ""
		distances = distances || !math.IsNaN(k.HD95)
	}
	sorted := slices.Clone(cases)
	slices.SortStableFunc(sorted, func(a, b Case) int { return cmp.Compare(a.Overlap.Dice(), b.Overlap.Dice()) })
	sorted = sorted[:min(len(sorted), maxPageCases)]
	t.Header, t.Tall = []string{"case"}, true
	column := func(there bool, name string) {
		if there {
			t.Header = append(t.Header, name)
		}
	}
	column(patients, "patient")
	column(classes, "class")
	t.Header = append(t.Header, "fold", "target px", "predicted px", "Dice", "IoU")
	column(distances, "HD95")
	for _, k := range sorted {
		row := []string{k.Name}
		if patients {
			row = append(row, k.Patient)
		}
		if classes {
			row = append(row, k.Class)
		}
		row = append(row, strconv.Itoa(k.Fold), strconv.Itoa(k.Overlap.Target), strconv.Itoa(k.Overlap.Predicted),
			fmt.Sprintf("%.3f", k.Overlap.Dice()), fmt.Sprintf("%.3f", k.Overlap.IoU()))
		if distances {
			d := "–"
			if !math.IsNaN(k.HD95) {
				d = fmt.Sprintf("%.1f %s", k.HD95, k.Unit)
			}
			row = append(row, d)
		}
		t.Rows = append(t.Rows, row)
	}
	return t, len(sorted)
}

package metric

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
)

// A Case is an image of a [Table].
type Case struct {
	Fold  int    // the fold in which it was held out
	Index int    // of the image in the data set; no two cases share one
	Name  string // name of the image
	Group string // its group, such as the patient; "" if it is its own group
}

// A Table keeps the pixel counts of each case and class at each of several
// thresholds. With them, any [Rule] with these thresholds can be scored on any fold
// after the probabilities are gone. They take 8 bytes per threshold and class instead
// of 5 bytes per pixel. A Table also keeps a [Histogram] per class.
//
// A Table depends only on the set of cases, not on the order in which cases were
// added and tables merged. Its methods may be called from several goroutines.
type Table struct {
	classes    []string
	thresholds []float64
	counters   sync.Pool

	mu         sync.Mutex
	cases      []*tableCase   // by fold and index
	names      map[int]string // by index
	histograms []Histogram    // per class
}

type tableCase struct {
	Case
	curves []Curve // per class
}

const maxThresholds = 4096 // limits the memory that a case of a few encoded bytes can take

// NewTable returns an empty table of the classes with these names, which do not
// include the background. nil thresholds mean [Thresholds].
func NewTable(classes []string, thresholds []float64) (*Table, error) {
	if thresholds == nil {
		thresholds = Thresholds()
	}
	c, err := newCounter(thresholds)
	if err != nil {
		return nil, err
	}
	if len(thresholds) > maxThresholds {
		return nil, fmt.Errorf("metric: a table of %d thresholds, want at most %d", len(thresholds), maxThresholds)
	}
	if len(classes) == 0 || len(classes) > 255 {
		return nil, fmt.Errorf("metric: a table of %d classes, want 1 to 255 besides the background", len(classes))
	}
	t := &Table{
		classes: slices.Clone(classes), thresholds: c.thresholds,
		names: map[int]string{}, histograms: make([]Histogram, len(classes)),
	}
	t.counters.New = func() any { return c.clone() }
	return t, nil
}

// RefinedThresholds returns the notebook's 99 thresholds and, between each two of
// them, n-1 more at equal distances: with n folds the mean of their best thresholds
// is one of them, except for a rounding error in float64 that vanishes in float32.
func RefinedThresholds(n int) []float64 {
	coarse := Thresholds()
	if n <= 1 {
		return coarse
	}
	fine := make([]float64, 0, n*len(coarse))
	for i, low := range coarse[:len(coarse)-1] {
		for j := range n {
			fine = append(fine, low+(coarse[i+1]-low)*float64(j)/float64(n))
		}
	}
	return append(fine, coarse[len(coarse)-1])
}

// Add adds a case, given by the probabilities of each class and the target; probs[i]
// are the probabilities of class i+1. It keeps neither slice. It returns an error if
// the table already has a case with this Index, or if the lengths differ.
func (t *Table) Add(c Case, probs [][]float32, target []uint8) error {
	if len(probs) != len(t.classes) {
		return fmt.Errorf("metric: case %q has probabilities of %d classes, the table has %d", c.Name, len(probs), len(t.classes))
	}
	for i, p := range probs {
		if len(p) != len(target) {
			return fmt.Errorf("metric: case %q has %d probabilities of %s and %d target pixels", c.Name, len(p), t.classes[i], len(target))
		}
	}
	entry := &tableCase{Case: c, curves: make([]Curve, len(probs))}
	counters := make([]*counter, len(probs))
	for i, p := range probs {
		counters[i] = t.counters.Get().(*counter)
		defer t.counters.Put(counters[i])
		counters[i].read(p, target, uint8(i+1))
		counters[i].curve(&entry.curves[i])
		entry.curves[i].Sum = Sum(p)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.insert(entry); err != nil {
		return err
	}
	for i, c := range counters {
		c.addTo(&t.histograms[i])
	}
	return nil
}

// insert adds a case at its place in the order.
func (t *Table) insert(c *tableCase) error {
	if name, ok := t.names[c.Index]; ok {
		return fmt.Errorf("metric: case %q is number %d, as is %q", c.Name, c.Index, name)
	}
	t.names[c.Index] = c.Name
	at, _ := slices.BinarySearchFunc(t.cases, c, compareCases)
	t.cases = slices.Insert(t.cases, at, c)
	return nil
}

func compareCases(a, b *tableCase) int {
	return cmp.Or(cmp.Compare(a.Fold, b.Fold), cmp.Compare(a.Index, b.Index))
}

// Merge adds the cases of another table, such as the table of another fold or
// process. It returns an error and adds nothing if the classes or thresholds
// differ, or if both tables have a case with the same Index.
func (t *Table) Merge(o *Table) error {
	if !slices.Equal(t.classes, o.classes) || !slices.Equal(t.thresholds, o.thresholds) {
		return fmt.Errorf("metric: cannot merge a table of classes %q at %d thresholds into one of %q at %d: they must be the same",
			o.classes, len(o.thresholds), t.classes, len(t.thresholds))
	}
	cases, histograms := o.snapshot()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range cases {
		if name, ok := t.names[c.Index]; ok {
			return fmt.Errorf("metric: cannot merge: case %q is number %d, as is %q", c.Name, c.Index, name)
		}
	}
	for _, c := range cases {
		t.names[c.Index] = c.Name
	}
	t.cases = append(t.cases, cases...)
	slices.SortFunc(t.cases, compareCases)
	for i := range histograms {
		t.histograms[i].Merge(&histograms[i])
	}
	return nil
}

// snapshot returns the present cases and histograms. A case never changes after
// it was added.
func (t *Table) snapshot() ([]*tableCase, []Histogram) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.cases), slices.Clone(t.histograms)
}

// Classes returns the names of the classes, without the background.
func (t *Table) Classes() []string { return slices.Clone(t.classes) }

// Thresholds returns the thresholds of the table, ascending.
func (t *Table) Thresholds() []float64 { return slices.Clone(t.thresholds) }

// Cases returns the cases, by fold and index.
func (t *Table) Cases() []Case {
	cases, _ := t.snapshot()
	out := make([]Case, len(cases))
	for i, c := range cases {
		out[i] = c.Case
	}
	return out
}

// Curve returns the mean Dice of a class at each threshold over the cases of a
// fold, or over all cases if fold is negative. minSum is the notebook's noise rule;
// 0 means none. It returns an error if there is no such class.
func (t *Table) Curve(class uint8, fold int, minSum float64) ([]float64, error) {
	if err := t.checkClass(class); err != nil {
		return nil, err
	}
	cases, _ := t.snapshot()
	tallies := make([]tally, len(t.thresholds))
	for _, c := range cases {
		if fold < 0 || c.Fold == fold {
			addCurve(tallies, &c.curves[class-1], minSum)
		}
	}
	dice := make([]float64, len(tallies))
	for k := range tallies {
		dice[k] = tallies[k].mean()
	}
	return dice, nil
}

// addCurve adds an image's score at each threshold.
func addCurve(tallies []tally, c *Curve, minSum float64) {
	for k := range tallies {
		o := c.At(k)
		if c.Sum < minSum {
			o.Both, o.Predicted = 0, 0
		}
		tallies[k].add(o)
	}
}

// Histogram returns the histogram of a class over all cases.
func (t *Table) Histogram(class uint8) (*Histogram, error) {
	if err := t.checkClass(class); err != nil {
		return nil, err
	}
	_, histograms := t.snapshot()
	return &histograms[class-1], nil
}

func (t *Table) checkClass(class uint8) error {
	if class < 1 || int(class) > len(t.classes) {
		return fmt.Errorf("metric: class %d, want 1 to %d: %q", class, len(t.classes), t.classes)
	}
	return nil
}

// Overlaps returns the pixel counts of each case under the rule of its fold, in
// the order of [Table.Cases]. The table must have the thresholds of the rules.
func (t *Table) Overlaps(class uint8, ruleOf func(fold int) Rule) ([]Overlap, error) {
	if err := t.checkClass(class); err != nil {
		return nil, err
	}
	cases, _ := t.snapshot()
	return t.overlaps(cases, class, ruleOf)
}

func (t *Table) overlaps(cases []*tableCase, class uint8, ruleOf func(fold int) Rule) ([]Overlap, error) {
	overlaps := make([]Overlap, len(cases))
	var rule gridRule
	for i, c := range cases {
		if i == 0 || c.Fold != cases[i-1].Fold {
			var err error
			if rule, err = t.onGrid(ruleOf(c.Fold)); err != nil {
				return nil, err
			}
		}
		overlaps[i] = rule.score(&c.curves[class-1])
	}
	return overlaps, nil
}

// Report scores a class, each case under the rule of its fold. It overrides Groups
// of the options and, if there are several classes, Class. A nil opt means the
// zero value.
func (t *Table) Report(class uint8, ruleOf func(fold int) Rule, opt *ReportOptions) (Report, error) {
	if err := t.checkClass(class); err != nil {
		return Report{}, err
	}
	cases, _ := t.snapshot()
	overlaps, err := t.overlaps(cases, class, ruleOf)
	if err != nil {
		return Report{}, err
	}
	var own ReportOptions
	if opt != nil {
		own = *opt
	}
	if len(t.classes) > 1 {
		own.Class = t.classes[class-1]
	}
	own.Groups = make([]string, len(overlaps))
	for i, c := range cases {
		own.Groups[i] = "group " + c.Group
		if c.Group == "" {
			own.Groups[i] = fmt.Sprintf("case %d", c.Index)
		}
	}
	return Summarize(overlaps, &own), nil
}

// A gridRule is a rule with its thresholds as indices.
type gridRule struct {
	minSum      float64
	top, bottom int
	minArea     int
}

func (t *Table) onGrid(r Rule) (gridRule, error) {
	g := gridRule{minSum: r.MinSum, minArea: r.MinArea}
	for _, x := range []struct {
		to    *int
		value float64
	}{{&g.top, r.Top}, {&g.bottom, r.Bottom}} {
		i := t.nearest(x.value)
		if float32(t.thresholds[i]) != float32(x.value) {
			return g, fmt.Errorf("metric: threshold %v was not counted; the nearest one in the table is %v", x.value, t.thresholds[i])
		}
		*x.to = i
	}
	return g, nil
}

// nearest returns the index of the threshold nearest to v; of two equally near
// ones, the lower.
func (t *Table) nearest(v float64) int {
	i, _ := slices.BinarySearch(t.thresholds, v)
	if i == len(t.thresholds) || i > 0 && v-t.thresholds[i-1] <= t.thresholds[i]-v {
		i--
	}
	return i
}

// score returns the counts of an image under the rule.
func (g gridRule) score(c *Curve) Overlap {
	if c.Sum < g.minSum || int(c.Predicted[g.top]) < g.minArea {
		return Overlap{Target: c.Target}
	}
	return c.At(g.bottom)
}

package report

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/metric"
)

// A Run holds the results of a training with folds that NewPage shows. All
// fields except Title and Classes may be empty.
type Run struct {
	Title string

	// Classes are the classes without the background, each with its scores.
	Classes []ClassScores

	// Cases are the held-out cases, a row per case and class, scored with the
	// same rules as Classes. The page shows the worst ones; CasesFile is the
	// name of the CSV file with all of them, in the folder of the page.
	Cases     []Case
	CasesFile string

	Batch    Picture     // the first training batch, see Grid
	Examples []Picture   // cases with contours, such as best, median and worst: see Samples
	Folds    []FoldRun   // how each fold was trained
	Facts    [][2]string // how the run was made: names and values
	Network  string      // the printed module tree
}

// ClassScores holds the scores of a class on the held-out cases.
type ClassScores struct {
	Name string // "" if there is only one class

	// Nested is the unbiased score: the rule for each fold was chosen on the
	// other folds. Same is scored with rules that were chosen on the scored
	// cases, so it is too high. The page shows Nested first. A report without
	// images is left out, such as Nested if there is only one fold.
	Nested, Same metric.Report

	Rules    []RuleScore // the ways to choose a rule that were tried
	Pictures []Picture   // such as threshold curves and calibration
}

// A RuleScore is a way to choose the rule that makes masks, and its result.
type RuleScore struct {
	Name         string // "one threshold, pooled"
	Rule         string // for new images, in words
	Nested, Same metric.Parts
	Used         bool // this rule makes the predictions
}

// A FoldRun describes the training of a fold.
type FoldRun struct {
	Name     string // "Fold 0"
	Epochs   []metric.Epoch
	Pictures []Picture // such as losses and rates
}

// NewPage returns the page of a run: first the unbiased scores, then their
// components, the cases, the training, and how the run was made.
func NewPage(r Run) Page {
	p := Page{Title: r.Title, Subtitle: r.subtitle()}
	for _, c := range r.Classes {
		p.Sections = append(p.Sections, c.section(r.Cases))
	}
	if len(r.Examples) > 0 {
		p.Sections = append(p.Sections, Section{Heading: "Examples", Images: r.Examples})
	}
	if len(r.Cases) > 0 {
		p.Sections = append(p.Sections, r.caseSection())
	}
	if len(r.Folds) > 1 {
		if s := foldSummary(r.Folds); len(s.Tables[0].Rows) > 0 {
			p.Sections = append(p.Sections, s)
		}
	}
	for _, f := range r.Folds {
		p.Sections = append(p.Sections, Section{Heading: f.Name, Images: f.Pictures, Tables: epochTables(f.Epochs), Folded: len(r.Folds) > 2})
	}
	if r.Batch.Path != "" {
		p.Sections = append(p.Sections, Section{
			Heading: "First batch", Images: []Picture{r.Batch},
			Text: "The images of the first training batch as the network was given them, with their masks.",
		})
	}
	if len(r.Facts) > 0 {
		t := Table{}
		for _, f := range r.Facts {
			t.Rows = append(t.Rows, f[:])
		}
		p.Sections = append(p.Sections, Section{Heading: "How it was made", Tables: []Table{t}})
	}
	if r.Network != "" {
		p.Sections = append(p.Sections, Section{Heading: "Network", Log: r.Network, Folded: true})
	}
	return p
}

// subtitle says on how many cases the scores are computed.
func (r Run) subtitle() string {
	if len(r.Classes) == 0 {
		return ""
	}
	c := r.Classes[0]
	n := c.lead().Images()
	if n == 0 {
		return ""
	}
	parts := []string{plural(n, "held-out case")}
	if len(r.Classes) == 1 {
		switch p := c.lead().Parts; {
		case p.Negatives == 0:
			parts = append(parts, "all with a target")
		case p.Positives == 0:
			parts = append(parts, "none with a target")
		default:
			parts = append(parts, fmt.Sprintf("%d with a target, %d without", p.Positives, p.Negatives))
		}
	}
	patients := map[string]bool{}
	for _, k := range r.Cases {
		if k.Patient != "" {
			patients[k.Patient] = true
		}
	}
	if len(patients) > 0 {
		parts = append(parts, plural(len(patients), "patient"))
	}
	if len(r.Folds) > 0 {
		parts = append(parts, plural(len(r.Folds), "fold"))
	}
	return strings.Join(parts, " · ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// lead returns the report that the page shows first.
func (c ClassScores) lead() metric.Report {
	if c.Nested.Images() > 0 {
		return c.Nested
	}
	return c.Same
}

func (c ClassScores) section(cases []Case) Section {
	s := Section{Heading: "Scores"}
	if c.Name != "" {
		s.Heading = c.Name
	}
	lead := c.lead()
	if lead.Images() == 0 {
		s.Text = "No case was scored."
		return s
	}
	honest := c.Nested.Images() > 0
	main := Number{Value: four(lead.Dice), Label: "mean Dice", Note: "thresholds chosen on the other folds"}
	if !honest {
		main.Note = "thresholds chosen on these same cases, so it is too high"
	}
	if i := lead.Interval; i.Level > 0 {
		main.Note += fmt.Sprintf("; %.0f %% interval %s to %s", 100*i.Level, four(i.Low), four(i.High))
	}
	s.Numbers = []Number{main, {four(lead.IoU), "mean IoU", "same cases, same thresholds"}}
	if lead.Negatives > 0 {
		s.Numbers = append(s.Numbers, Number{four(lead.AllEmpty()), "predicting nothing", "the score of an empty mask for every case"})
	}
	s.Text = decomposition(lead.Parts)
	if honest && c.Same.Images() > 0 {
		s.Text += fmt.Sprintf("\n\nAt thresholds chosen on the cases that are scored the mean Dice would be %s, %s more: the part that is not to be expected on new cases.",
			four(c.Same.Dice), four(c.Same.Dice-c.Nested.Dice))
	}
	if len(c.Rules) > 0 {
		s.Tables = append(s.Tables, ruleTable(c.Rules))
	}
	if confusion := Confuse(cases, c.Name); confusion != (Confusion{}) {
		t := confusion.Table()
		t.Caption = "Empty and non-empty"
		s.Tables = append(s.Tables, t)
	}
	s.Images = c.Pictures
	return s
}

// decomposition describes the components of a mean Dice. A component without
// cases is left out.
func decomposition(p metric.Parts) string {
	negative := fmt.Sprintf("%s of %s without a target (specificity)", four(p.Specificity), plural(p.Negatives, "case"))
	positive := fmt.Sprintf("%s, the mean Dice of %s with one", four(p.DicePositive), plural(p.Positives, "case"))
	switch {
	case p.Negatives == 0:
		return fmt.Sprintf("Every one of the %s has a target.", plural(p.Positives, "case"))
	case p.Positives == 0:
		return fmt.Sprintf("No case has a target: the score is the share on which nothing is predicted, %s of %s.", four(p.Specificity), plural(p.Negatives, "case"))
	}
	share := p.AllEmpty()
	return fmt.Sprintf("The mean is %s × %s + %s × %s: nothing is predicted on %s, and %s.",
		four(share), four(p.Specificity), four(1-share), four(p.DicePositive), negative, positive)
}

func ruleTable(rules []RuleScore) Table {
	t := Table{Caption: "Ways to choose the rule that makes a mask", Header: []string{"way", "rule for new images", "chosen on others", "chosen on the same", "difference"}}
	for _, r := range rules {
		name := r.Name
		if r.Used {
			name += " (used)"
		}
		nested, same, gap := "–", "–", "–"
		if r.Nested.Images() > 0 {
			nested = four(r.Nested.Dice)
		}
		if r.Same.Images() > 0 {
			same = four(r.Same.Dice)
		}
		if r.Nested.Images() > 0 && r.Same.Images() > 0 {
			gap = four(r.Same.Dice - r.Nested.Dice)
		}
		t.Rows = append(t.Rows, []string{name, r.Rule, nested, same, gap})
	}
	return t
}

func (r Run) caseSection() Section {
	t, shown := caseTable(r.Cases)
	s := Section{Heading: "Cases", Tables: []Table{t}}
	s.Text = "The lowest Dice first."
	if shown < len(r.Cases) {
		s.Text = fmt.Sprintf("The %d of %d with the lowest Dice.", shown, len(r.Cases))
	}
	if r.CasesFile != "" {
		s.Text += fmt.Sprintf(" %s has every row and more columns.", filepath.Base(r.CasesFile))
	}
	return s
}

// foldSummary returns a section with the last epoch of each fold.
func foldSummary(folds []FoldRun) Section {
	t := Table{Caption: "Last epoch of each fold"}
	for _, f := range folds {
		if len(f.Epochs) == 0 {
			continue
		}
		last := f.Epochs[len(f.Epochs)-1]
		header := append([]string{"fold", "phase"}, tableHeader(last)...)
		if t.Header == nil {
			t.Header = header
		}
		if len(header) == len(t.Header) {
			t.Rows = append(t.Rows, append([]string{f.Name, last.Phase}, tableRow(last)...))
		}
	}
	return Section{Heading: "Training", Tables: []Table{t}}
}

// epochTables returns a table for each phase.
func epochTables(epochs []metric.Epoch) []Table {
	var out []Table
	for i, e := range epochs {
		if i == 0 || e.Phase != epochs[i-1].Phase || !sameNames(e, epochs[i-1]) {
			out = append(out, Table{Caption: e.Phase, Header: append(tableHeader(e), "images/s")})
		}
		t := &out[len(out)-1]
		speed := "–"
		if finite(e.Speed) && e.Speed > 0 {
			speed = fmt.Sprintf("%.1f", e.Speed)
		}
		t.Rows = append(t.Rows, append(tableRow(e), speed))
	}
	return out
}

// four formats a score with four decimals, or as a dash if it was not measured.
func four(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.4f", v)
}

// CasesOf returns the rows of a class for the cases of a table, each scored with
// the rule of its fold; metric.Choice has SameRule and NestedRule for this.
// Distances are NaN, because a table does not have them.
func CasesOf(t *metric.Table, class uint8, ruleOf func(fold int) metric.Rule) ([]Case, error) {
	overlaps, err := t.Overlaps(class, ruleOf)
	if err != nil {
		return nil, err
	}
	name := ""
	if classes := t.Classes(); len(classes) > 1 {
		name = classes[class-1]
	}
	cases := make([]Case, len(overlaps))
	for i, c := range t.Cases() {
		cases[i] = Case{
			Fold: c.Fold, Name: c.Name, Patient: c.Group, Class: name, Overlap: overlaps[i],
			HD95: math.NaN(), Surface: math.NaN(), Unit: "px", Threshold: ruleOf(c.Fold).Bottom,
		}
	}
	return cases, nil
}

// CurvesOf returns curves for DicePlot: mean Dice against threshold of a class,
// for each fold of the table and, if there are several, for all cases together.
// If minSum is not 0, the notebook's noise rule is applied.
func CurvesOf(t *metric.Table, class uint8, minSum float64) ([]Curve, error) {
	folds := map[int]bool{}
	for _, c := range t.Cases() {
		folds[c.Fold] = true
	}
	var curves []Curve
	add := func(c Curve, fold int) error {
		var err error
		c.Thresholds = t.Thresholds()
		c.Dice, err = t.Curve(class, fold, minSum)
		curves = append(curves, c)
		return err
	}
	for _, f := range slices.Sorted(maps.Keys(folds)) {
		if err := add(Curve{Name: fmt.Sprintf("fold %d", f)}, f); err != nil {
			return nil, err
		}
	}
	if len(folds) > 1 {
		if err := add(Curve{Name: "pooled", Pooled: true}, -1); err != nil {
			return nil, err
		}
	}
	return curves, nil
}

// RulesOf returns the three ways of metric.Table.Search as rows for the page;
// used is the way whose rule makes the predictions.
func RulesOf(c *metric.Choices, used *metric.Choice) []RuleScore {
	row := func(name string, x *metric.Choice) RuleScore {
		return RuleScore{Name: name, Rule: x.Rule.String(), Nested: x.Nested, Same: x.Same, Used: x == used}
	}
	return []RuleScore{
		row("best threshold of each fold, mean", &c.PerFold),
		row("one threshold, pooled", &c.Pooled),
		row("triplet, pooled", &c.Triplet),
	}
}

package ensemble

import (
	"fmt"
	"io"

	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/report"
)

// page writes report.html, everything a run shows in one file, and the cases that
// it shows a part of.
func (r *run) page() error {
	choice := &r.result.Choices.PerFold
	honest := choice.Nested.Images() > 0 // there are folds enough
	ruleOf := choice.SameRule
	if honest {
		ruleOf = choice.NestedRule
	}
	cases, err := report.CasesOf(r.heldOut, foreground, ruleOf)
	scores := report.ClassScores{Same: r.result.OutOfFold, Rules: report.RulesOf(r.result.Choices, choice)}
	if honest && err == nil {
		scores.Nested, err = r.heldOut.Report(foreground, choice.NestedRule, &metric.ReportOptions{
			Chosen: metric.ChosenOnOthers, Rand: random.New(uint64(r.Seed), "bootstrap"),
		})
	}
	if err != nil {
		return err
	}
	histogram, err := r.heldOut.Histogram(foreground)
	if err != nil {
		return err
	}
	bins, err := histogram.Calibration(20)
	if err != nil {
		return err
	}
	if err := report.CalibrationPlot(r.out.path("calibration.png"), "Calibration", bins); err != nil {
		return err
	}
	scores.Pictures = []report.Picture{
		{Path: r.out.path("dice.png"), Caption: "Mean Dice against threshold, fold by fold and of all together."},
		{Path: r.out.path("calibration.png"), Caption: "How often a pixel is in the target, against its probability, and how many pixels have it."},
	}
	err = atomicfile.Write(r.out.path("cases.csv"), func(w io.Writer) error { return report.WriteCases(w, cases) })
	if err != nil {
		return err
	}
	p := report.Run{Title: "Ensemble on " + r.Data, Classes: []report.ClassScores{scores}, Cases: cases, CasesFile: "cases.csv"}
	for f := range r.folds {
		fold := report.FoldRun{Name: fmt.Sprintf("Fold %d", f), Epochs: r.epochs[f]}
		if len(r.epochs[f]) > 0 {
			fold.Pictures = []report.Picture{{Path: r.out.path("loss_fold%d.png", f)}, {Path: r.out.path("rates_fold%d.png", f)}}
		}
		p.Folds = append(p.Folds, fold)
		p.Examples = append(p.Examples, report.Picture{Path: r.out.path("samples_fold%d.png", f)})
	}
	for _, n := range r.Config.notes() {
		p.Facts = append(p.Facts, [2]string{n.name, fmt.Sprint(n.value)})
	}
	return report.WritePage(r.out.path("report.html"), report.NewPage(p))
}

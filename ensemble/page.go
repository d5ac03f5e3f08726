package ensemble

import (
	"fmt"
	"strings"

	"github.com/hcunet/hcunet/report"
)

// page writes report.html: everything a run shows, in one file.
func (r *run) page() error {
	scores := report.Section{
		Heading: "Scores",
		Text:    "Mean Dice of the held-out images of each fold, at the threshold that is best for them.",
		Header:  []string{"fold", "Dice", "threshold"},
		Images:  []string{r.out.path("dice.png")},
	}
	for f, s := range r.result.Scores {
		scores.Rows = append(scores.Rows, []string{fmt.Sprint(f), fmt.Sprintf("%.4f", s), fmt.Sprintf("%.2f", r.result.Thresholds[f])})
	}
	scores.Rows = append(scores.Rows, []string{"mean", fmt.Sprintf("%.4f", r.result.MeanScore()), fmt.Sprintf("%.4f", r.result.Threshold)})

	pooled := report.Section{
		Heading: "All held-out images",
		Text:    fmt.Sprintf("At threshold %.4f, the mean of the folds' thresholds. For research; this says nothing about a patient.", r.result.Threshold),
		Log:     r.result.OutOfFold.String(),
	}
	p := report.Page{Title: "Ensemble on " + r.Data, Sections: []report.Section{scores, pooled}}
	for f := range r.folds {
		var log strings.Builder
		if err := report.WriteTable(&log, r.epochs[f]); err != nil {
			return err
		}
		s := report.Section{Heading: fmt.Sprintf("Fold %d", f), Log: log.String()}
		if len(r.epochs[f]) > 0 {
			s.Images = append(s.Images, r.out.path("loss_fold%d.png", f), r.out.path("rates_fold%d.png", f))
		}
		s.Images = append(s.Images, r.out.path("samples_fold%d.png", f))
		p.Sections = append(p.Sections, s)
	}
	how := report.Section{Heading: "How it was made", Header: []string{"choice", "value"}}
	for _, c := range r.Config.notes() {
		how.Rows = append(how.Rows, []string{c.name, fmt.Sprint(c.value)})
	}
	p.Sections = append(p.Sections, how)
	return report.WritePage(r.out.path("report.html"), p)
}

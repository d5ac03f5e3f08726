package ensemble

import (
	"fmt"
	"image"
	"io"
	"math"
	"os"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/report"
)

const (
	extremes        = 4 // number of cases shown of the worst, the median and the best
	calibrationBins = 10
)

// page writes the cases, the pictures of all folds and report.html.
func (r *run) page(table *metric.Table, parts []part, res *Result) error {
	cases, err := r.cases(table, res)
	if err != nil {
		return err
	}
	err = atomicfile.Write(r.out.path("cases.csv"), func(w io.Writer) error { return report.WriteCases(w, cases) })
	if err != nil {
		return err
	}
	page := report.Run{
		Title: "Ensemble on " + r.cfg.Data, Cases: cases, CasesFile: "cases.csv",
		Batch: report.Picture{Path: r.out.path("first_batch.png"), Caption: "first batch of fold 0"},
		Facts: r.pageFacts(),
	}
	if _, err := os.Stat(page.Batch.Path); err != nil { // folds were trained separately
		page.Batch = report.Picture{}
	}
	if text, err := os.ReadFile(r.out.path("network.txt")); err == nil {
		page.Network = string(text)
	}
	for i, c := range res.Classes {
		scores, err := r.classScores(table, i, c)
		if err != nil {
			return err
		}
		page.Classes = append(page.Classes, scores)
		examples, err := r.examples(table, cases, i, c)
		if err != nil {
			return err
		}
		page.Examples = append(page.Examples, examples...)
	}
	for f, p := range parts {
		page.Folds = append(page.Folds, report.FoldRun{
			Name: fmt.Sprintf("Fold %d", f), Epochs: p.Epochs,
			Pictures: []report.Picture{{Path: r.out.path("loss_fold%d.png", f)}, {Path: r.out.path("rates_fold%d.png", f)}},
		})
	}
	return report.WritePage(r.out.path("report.html"), report.NewPage(page))
}

// className returns the name of a class for a row or picture, "" if there is
// only one class.
func (r *run) className(c Class) string {
	if len(r.cfg.Task.Classes) == 2 {
		return ""
	}
	return c.Name
}

// classScores returns the scores of a class and draws its plots.
func (r *run) classScores(table *metric.Table, i int, c Class) (report.ClassScores, error) {
	class := uint8(i + 1)
	scores := report.ClassScores{Name: r.className(c), Nested: c.OutOfFold, Same: c.InSample}
	names := map[string]string{
		PerFold.String(): "mean of each fold's best threshold", Pooled.String(): "one threshold, pooled", Triplet.String(): "triplet, pooled",
	}
	for _, row := range c.rows() {
		scores.Rules = append(scores.Rules, report.RuleScore{
			Name: names[row.name], Rule: row.choice.Rule.String(), Nested: row.choice.Nested, Same: row.choice.Same,
			Used: row.name == r.cfg.Inference.Rule.String(),
		})
	}
	var curves []report.Curve
	for f := -1; f < len(r.folds); f++ {
		curve := report.Curve{Name: fmt.Sprintf("fold %d", f)}
		if f < 0 {
			curve.Name, curve.Pooled = "pooled", true
		}
		dice, err := table.Curve(class, f, r.cfg.Inference.MinSum)
		if err != nil {
			return scores, err
		}
		// The table has additional thresholds for the means of the folds' best thresholds;
		// the plot leaves them out.
		for k := 0; k < len(dice); k += len(r.folds) {
			curve.Thresholds, curve.Dice = append(curve.Thresholds, table.Thresholds()[k]), append(curve.Dice, dice[k])
		}
		curves = append(curves, curve)
	}
	curves = append(curves[1:], curves[0]) // the pooled curve is drawn above the others
	picture := func(kind string) string {
		if scores.Name == "" {
			return r.out.path("%s.png", kind)
		}
		return r.out.path("%s_class%d.png", kind, class)
	}
	if err := report.DicePlot(picture("dice"), "Dice of the held-out images against threshold", curves...); err != nil {
		return scores, err
	}
	histogram, err := table.Histogram(class)
	if err != nil {
		return scores, err
	}
	bins, err := histogram.Calibration(calibrationBins)
	if err != nil {
		return scores, err
	}
	if err := report.CalibrationPlot(picture("calibration"), "Calibration", bins); err != nil {
		return scores, err
	}
	scores.Pictures = []report.Picture{{Path: picture("dice")}, {Path: picture("calibration")}}
	return scores, nil
}

// cases returns a row for each held-out image and class, scored with the rule
// that was chosen on the other folds.
func (r *run) cases(table *metric.Table, res *Result) (rows []report.Case, err error) {
	held := table.Cases()
	unit, spacing := "px", metric.Spacing{}
	for i, c := range res.Classes {
		choice := r.chosen(c.Choices)
		overlaps, err := table.Overlaps(uint8(i+1), choice.NestedRule)
		if err != nil {
			return nil, err
		}
		for j, k := range held {
			rule := choice.NestedRules[k.Fold]
			row := report.Case{
				Fold: k.Fold, Name: k.Name, Patient: k.Group, Class: r.className(c), Overlap: overlaps[j],
				HD95: math.NaN(), Surface: math.NaN(), Unit: unit, Threshold: rule.Bottom,
			}
			if overlaps[j].Target > 0 && overlaps[j].Predicted > 0 {
				_, target, predicted, err := r.heldOutCase(k, i, rule)
				if err != nil {
					return nil, err
				}
				d, err := metric.SurfaceDistances(predicted, target, 1, r.cfg.Size, r.cfg.Size, spacing)
				if err != nil {
					return nil, err
				}
				row.HD95, row.Surface = d.Hausdorff95, d.Mean
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// heldOutCase returns a held-out image at the network's size, and the masks of a class
// in it, with the values 0 and 1: the target, and the mask that a rule makes of the
// saved probabilities, which have steps of 1/255.
func (r *run) heldOutCase(k metric.Case, class int, rule metric.Rule) (img image.Image, target, predicted []uint8, err error) {
	at := -1
	for j, i := range r.folds[k.Fold] {
		if i == k.Index {
			at = j
		}
	}
	if at < 0 {
		return nil, nil, nil, fmt.Errorf("image %s is not held out in fold %d of this data", k.Name, k.Fold)
	}
	probs, err := r.out.readPrediction(fmt.Sprintf("fold%d", k.Fold), at, len(r.folds[k.Fold]), len(r.cfg.Task.Classes)-1, r.cfg.Size)
	if err != nil {
		return nil, nil, nil, err
	}
	prob := make([]float32, len(probs[class]))
	for i, v := range probs[class] {
		prob[i] = (float32(v) + 0.5) / 255 // the middle of the probabilities that give this byte
	}
	predicted = make([]uint8, len(prob))
	rule.MinSum, rule.MinArea = 0, 0 // the image has a mask
	rule.Apply(predicted, prob, 1)
	picture, mask, err := r.images.At(k.Index)
	if err != nil {
		return nil, nil, nil, err
	}
	plan, err := augment.Identity().Plan(picture.Height, picture.Width, r.cfg.Size)
	if err != nil {
		return nil, nil, nil, err
	}
	src := make([]float32, picture.Channels*picture.Height*picture.Width)
	for i := range src {
		src[i] = float32(picture.At(i))
	}
	target = augment.Mask(&plan, nil, mask)
	for i, v := range target {
		target[i] = 0
		if int(v) == class+1 {
			target[i] = 1
		}
	}
	img, err = report.ImageOf(picture.Channels, plan.H, plan.W, plan.Image(nil, src))
	return img, target, predicted, err
}

// examples draws the worst, median and best cases of a class.
func (r *run) examples(table *metric.Table, cases []report.Case, class int, c Class) (pictures []report.Picture, err error) {
	held := map[string]metric.Case{}
	for _, k := range table.Cases() {
		held[k.Name] = k
	}
	choice := r.chosen(c.Choices)
	worst, median, best := report.Extremes(cases, r.className(c), extremes)
	for _, group := range []struct {
		name  string
		cases []int
	}{{"worst", worst}, {"median", median}, {"best", best}} {
		var samples []report.Sample
		for _, i := range group.cases {
			k := held[cases[i].Name]
			img, target, predicted, err := r.heldOutCase(k, class, choice.NestedRules[k.Fold])
			if err != nil {
				return nil, err
			}
			if cases[i].Overlap.Predicted == 0 {
				clear(predicted)
			}
			samples = append(samples, report.Sample{
				Caption: fmt.Sprintf("%s  Dice %.3f", k.Name, cases[i].Overlap.Dice()),
				Image:   img, Target: target, Predicted: predicted,
			})
		}
		if len(samples) == 0 {
			continue
		}
		path := r.out.path("%s_class%d.png", group.name, class+1)
		if r.className(c) == "" {
			path = r.out.path("%s.png", group.name)
		}
		title := "held-out images, " + group.name
		if err := report.Samples(path, samples, &report.SampleOptions{Title: title, Classes: []string{r.cfg.Task.Classes[0], c.Name}}); err != nil {
			return nil, err
		}
		pictures = append(pictures, report.Picture{Path: path, Caption: title})
	}
	return pictures, nil
}

// pageFacts returns how the run was made, for the page.
func (r *run) pageFacts() (out [][2]string) {
	leaves := map[string]string{}
	out = append(out, r.descriptionFacts(leaves)...)
	runs, err := r.out.facts()
	if err != nil || len(runs) == 0 {
		return out
	}
	last := runs[len(runs)-1]
	for _, f := range [][2]string{
		{"started", runs[0].Started}, {"command", last.Command}, {"device", last.Device}, {"threads", fmt.Sprint(last.Threads)},
		{"program", last.Program}, {"go", last.Go}, {"libtorch", last.Libtorch},
	} {
		out = append(out, f)
	}
	if r.opt.AllowLeak {
		out = append(out, [2]string{"held-out images seen before", "allowed by -allow-leak: the networks may have been trained on images on which they are scored"})
	}
	return out
}

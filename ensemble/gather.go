package ensemble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/libtorch"
)

// A Result holds the scores of a run.
type Result struct {
	Out     string  `json:"-"`
	Classes []Class `json:"classes"` // all but the background; empty if only one fold was trained

	TestImages int `json:"test_images"`
}

// A Class holds the rules and scores of one class.
type Class struct {
	Name    string          `json:"name"`
	Choices *metric.Choices `json:"choices"`
	Rule    metric.Rule     `json:"rule"` // the rule that makes the submission

	// OutOfFold has the scores of the held-out images with rules that were chosen on
	// the other folds. InSample has the scores of the same images with rules that were
	// chosen on these images (with PerFold, the best threshold of each image's own
	// fold); they are too high.
	OutOfFold metric.Report `json:"out_of_fold"`
	InSample  metric.Report `json:"in_sample"`

	// Folds holds the best threshold of each fold and the score of its images at this
	// threshold: the numbers that the notebook prints.
	Folds []FoldScore `json:"folds"`

	TestMasks int `json:"test_masks"` // test images on which anything is predicted
}

// A FoldScore is a fold's best threshold and its mean Dice there.
type FoldScore struct {
	Threshold float64 `json:"threshold"`
	Dice      float64 `json:"dice"`
}

// MeanScore returns the mean of the folds' scores.
func (c *Class) MeanScore() float64 {
	sum := 0.0
	for _, f := range c.Folds {
		sum += f.Dice
	}
	return sum / float64(len(c.Folds))
}

// String returns the result as a few lines of text.
func (r *Result) String() string {
	var b strings.Builder
	for i, c := range r.Classes {
		if i > 0 {
			b.WriteByte('\n')
		}
		if len(r.Classes) > 1 {
			fmt.Fprintf(&b, "class %s\n", c.Name)
		}
		fmt.Fprintf(&b, "all held-out images, each scored with a rule that was chosen on the other folds:\n%s\n\n", c.OutOfFold)
		fmt.Fprintf(&b, "%s\nused for new images: %v\n\n", c.Choices, c.Rule)
		b.WriteString("fold  threshold  Dice at this threshold, which was chosen on the same images\n")
		for f, s := range c.Folds {
			fmt.Fprintf(&b, "%-4d  %.2f       %.4f\n", f, s.Threshold, s.Dice)
		}
		if r.TestImages > 0 {
			fmt.Fprintf(&b, "\n%d of %d test images have a mask in submission.csv\n", c.TestMasks, r.TestImages)
		}
	}
	return b.String()
}

type ruleRow struct {
	name   string
	choice metric.Choice
}

func (c *Class) rows() []ruleRow {
	return []ruleRow{{PerFold.String(), c.Choices.PerFold}, {Pooled.String(), c.Choices.Pooled}, {Triplet.String(), c.Choices.Triplet}}
}

// chosen returns the choice that the description names.
func (r *run) chosen(c *metric.Choices) metric.Choice {
	switch r.cfg.Inference.Rule {
	case Pooled:
		return c.Pooled
	case Triplet:
		return c.Triplet
	}
	return c.PerFold
}

// gather makes the ensemble. All folds must be done.
func (r *run) gather(ctx context.Context) (*Result, error) {
	table, parts, err := r.parts()
	if err != nil {
		return nil, err
	}
	res := &Result{Out: r.out.dir, TestImages: r.test.Len()}
	for i, name := range r.cfg.Task.Classes[1:] {
		class := uint8(i + 1)
		choices, err := table.Search(class, &metric.SearchOptions{MinSum: r.cfg.Inference.MinSum})
		if err != nil {
			return nil, err
		}
		choice := r.chosen(choices)
		c := Class{Name: name, Choices: choices, Rule: choice.Rule}
		rand := func() *metric.ReportOptions {
			return &metric.ReportOptions{Rand: random.New(uint64(r.cfg.Seed), "bootstrap", uint64(class))}
		}
		nested, same := rand(), rand()
		nested.Chosen, same.Chosen = metric.ChosenOnOthers, metric.ChosenOnSame
		if c.OutOfFold, err = table.Report(class, choice.NestedRule, nested); err != nil {
			return nil, err
		}
		if c.InSample, err = table.Report(class, choice.SameRule, same); err != nil {
			return nil, err
		}
		for f := range r.folds {
			dice, err := table.Curve(class, f, r.cfg.Inference.MinSum)
			if err != nil {
				return nil, err
			}
			threshold := choices.PerFold.SameRules[f].Bottom
			c.Folds = append(c.Folds, FoldScore{threshold, dice[slices.Index(table.Thresholds(), threshold)]})
		}
		res.Classes = append(res.Classes, c)
	}
	a, err := r.artifact(res)
	if err != nil {
		return nil, err
	}
	if r.cfg.Preparation != nil {
		if err := predict.WriteArtifact(r.out.path("model.safetensors"), a); err != nil {
			return nil, err
		}
	} else {
		r.opt.Progress.Printf("model.safetensors is not written: the folder %s does not say how its images were prepared", r.cfg.Data)
	}
	if r.test.Len() > 0 {
		if err := r.predictTest(ctx, a, res); err != nil {
			return nil, fmt.Errorf("test images: %w", err)
		}
	}
	if err := r.page(table, parts, res); err != nil {
		return nil, err
	}
	if err := atomicfile.WriteFile(r.out.path("scores.txt"), []byte(res.String())); err != nil {
		return nil, err
	}
	return res, r.out.json("scores.json", res)
}

// parts reads the tables and parts of all folds.
func (r *run) parts() (*metric.Table, []part, error) {
	var table *metric.Table
	parts := make([]part, len(r.folds))
	for f := range r.folds {
		p, done, err := r.out.part(f)
		if err != nil {
			return nil, nil, err
		}
		if !done {
			return nil, nil, fmt.Errorf("fold %d of %d is not done; train it with -fold %d, then gather", f, len(r.folds), f)
		}
		parts[f] = p
		path := r.out.path("cases_fold%d.bin", f)
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		t, err := metric.ReadTable(b)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		if table == nil {
			table = t
		} else if err := table.Merge(t); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return table, parts, nil
}

// predictTest predicts the test images with the artifact, in the same way as later
// films, and writes the mean of the networks' probabilities and the submission.
func (r *run) predictTest(ctx context.Context, a *predict.Artifact, res *Result) (err error) {
	engine, err := libtorch.Backend{Device: r.opt.Device, Precision: r.cfg.Training.Precision, Threads: nn.Threads()}.Open(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	source, err := r.source(r.test)
	if err != nil {
		return err
	}
	found := newSubmission(&a.Model, r.cfg.Inference.NotebookRuns)
	r.opt.Progress.Start("test images", r.test.Len())
	defer r.opt.Progress.End()
	size, area := r.cfg.Task.Outputs()*r.cfg.Size*r.cfg.Size, r.cfg.Size*r.cfg.Size
	err = r.out.writePredictions("test", names(r.test), len(res.Classes), r.cfg.Size, func(add func([][]float32) error) error {
		for b, err := range source.Epoch(0, 0) {
			if err == nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				return err
			}
			prob, err := engine.Probabilities(b.Images, b.N)
			if err != nil {
				return err
			}
			for i, index := range b.Indices {
				one := prob[i*size : (i+1)*size]
				classes := slices.Collect(slices.Chunk(one, area))
				if err := add(classes[len(classes)-len(res.Classes):]); err != nil { // without the background
					return err
				}
				if err := found.add(r.test.Name(index), one, r.geometry(index)); err != nil {
					return err
				}
				r.opt.Progress.Add(1)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for c := range res.Classes {
		res.Classes[c].TestMasks = found.masks[c]
	}
	return found.save(r.out)
}

// geometry returns where the film of a test image lies in the image that the
// network gets.
func (r *run) geometry(i int) resize.Geometry {
	g := r.ds.Test[i].Geometry
	if g.FilmWidth == 0 {
		side := r.cfg.Inference.FilmSize
		g = resize.Geometry{FilmWidth: side, FilmHeight: side}
	}
	g.Width, g.Height = r.cfg.Size, r.cfg.Size
	return g
}

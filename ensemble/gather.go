package ensemble

import (
	"context"
	"fmt"
	"image"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/rle"
	"github.com/hcunet/hcunet/train"
)

// A Result is what a run found out.
type Result struct {
	Out     string  `json:"-"`
	Classes []Class `json:"classes"` // all but the background; none of a fold that was trained alone

	TestImages int `json:"test_images"`
}

// A Class is what was found for one of the classes.
type Class struct {
	Name    string          `json:"name"`
	Choices *metric.Choices `json:"choices"`
	Rule    metric.Rule     `json:"rule"` // that makes the submission

	// OutOfFold scores each held-out image under the rule that was chosen on the other
	// folds. Flattered scores them under Rule, which was chosen on them.
	OutOfFold metric.Report `json:"out_of_fold"`
	Flattered metric.Report `json:"flattered"`

	// Folds are the best thresholds of each fold, and the scores of its images at them:
	// the notebook's numbers.
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
		fmt.Fprintf(&b, "all held-out images, each under a rule that was chosen on the other folds:\n%s\n\n", c.OutOfFold)
		fmt.Fprintf(&b, "%s\nused for new images: %v\n\n", c.Choices, c.Rule)
		b.WriteString("fold  threshold  Dice at it, which was chosen on the same images\n")
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

// chosen returns the choice that the description asks for.
func (r *run) chosen(c *metric.Choices) metric.Choice {
	switch r.cfg.Inference.Rule {
	case Pooled:
		return c.Pooled
	case Triplet:
		return c.Triplet
	}
	return c.PerFold
}

// gather makes the ensemble of the folds, which are all done.
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
		honest, flattered := rand(), rand()
		honest.Chosen, flattered.Chosen = metric.ChosenOnOthers, metric.ChosenOnSame
		if c.OutOfFold, err = table.Report(class, choice.NestedRule, honest); err != nil {
			return nil, err
		}
		if c.Flattered, err = table.Report(class, func(int) metric.Rule { return choice.Rule }, flattered); err != nil {
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
	if r.test.Len() > 0 {
		if err := r.predictTest(ctx, res); err != nil {
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

// parts reads what the folds left.
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

// trained returns the learner of a fold that is done, to predict with.
func (r *run) trained(f int) (*train.Learner, error) {
	net, err := r.network(f)
	if err != nil {
		return nil, err
	}
	path := r.out.path("fold%d.safetensors", f)
	weights, err := checkpoint.Open(path)
	if err == nil {
		err = nn.LoadState(net, weights)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r.learner(f, net, nil)
}

// predictTest predicts the test images with all networks at a time, one batch after
// the other, and writes the mean and the submission.
func (r *run) predictTest(ctx context.Context, res *Result) (err error) {
	nn.Scope(func() { err = r.predictTestInScope(ctx, res) })
	return err
}

func (r *run) predictTestInScope(ctx context.Context, res *Result) error {
	learners := make([]*train.Learner, len(r.folds))
	for f := range learners {
		var err error
		if learners[f], err = r.trained(f); err != nil {
			return err
		}
	}
	source, err := r.source(r.test)
	if err != nil {
		return err
	}
	rows := make([][]maskcsv.Row, len(res.Classes))
	r.opt.Progress.Start("test images", r.test.Len())
	defer r.opt.Progress.End()
	err = r.out.writePredictions("test", names(r.test), len(res.Classes), r.cfg.Size, func(add func([][]float32) error) error {
		for b, err := range source.Epoch(0, 0) {
			if err != nil {
				return err
			}
			mean, err := r.mean(ctx, learners, source, b)
			if err != nil {
				return err
			}
			for i, probs := range mean {
				if err := add(probs); err != nil {
					return err
				}
				image := b.Indices[i]
				masks := r.masks(probs, res)
				for c := range res.Classes {
					runs, err := r.encode(image, masks[c])
					if err != nil {
						return fmt.Errorf("%s: %w", r.test.Name(image), err)
					}
					rows[c] = append(rows[c], maskcsv.Row{ID: r.test.Name(image), Runs: runs})
					if runs != "" {
						res.Classes[c].TestMasks++
					}
				}
				r.opt.Progress.Add(1)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for c, class := range res.Classes {
		name := "submission.csv"
		if len(res.Classes) > 1 {
			if name, err = data.FileName("submission_" + class.Name); err != nil {
				return err
			}
			name += ".csv"
		}
		if err := maskcsv.SaveSubmission(r.out.path("%s", name), rows[c]); err != nil {
			return err
		}
	}
	return nil
}

// mean returns the probabilities of a batch's images, averaged over the networks, of
// each class.
func (r *run) mean(ctx context.Context, learners []*train.Learner, source *feed.Loader, b *feed.Batch) ([][][]float32, error) {
	sum := make([][][]float32, b.N)
	for _, l := range learners {
		n := 0
		err := l.Predict(ctx, oneBatch{source, b}, r.flip(), func(p *train.Prediction) error {
			probs := r.probabilities(p)
			if sum[n] == nil {
				sum[n] = probs
			} else {
				for c, prob := range probs {
					for i, v := range prob {
						sum[n][c][i] += v
					}
				}
			}
			n++
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, probs := range sum {
		for _, prob := range probs {
			for i := range prob {
				prob[i] /= float32(len(learners))
			}
		}
	}
	return sum, nil
}

// oneBatch is a source of one batch of another.
type oneBatch struct {
	*feed.Loader
	batch *feed.Batch
}

func (oneBatch) Batches() int { return 1 }

func (o oneBatch) Epoch(int, int) iter.Seq2[*feed.Batch, error] {
	return func(yield func(*feed.Batch, error) bool) { yield(o.batch, nil) }
}

// masks returns the mask of each class, of 0 and 255. Where classes exclude one
// another and several are predicted, the most probable one of them counts.
func (r *run) masks(probs [][]float32, res *Result) [][]uint8 {
	masks := make([][]uint8, len(probs))
	for c, prob := range probs {
		masks[c] = make([]uint8, len(prob))
		res.Classes[c].Rule.Apply(masks[c], prob, 255)
	}
	if r.cfg.Task.Output == data.Sigmoid || len(probs) == 1 {
		return masks
	}
	for i := range masks[0] {
		best := -1
		for c := range masks {
			if masks[c][i] == 0 {
				continue
			}
			if best >= 0 && probs[best][i] >= probs[c][i] {
				masks[c][i] = 0
				continue
			}
			if best >= 0 {
				masks[best][i] = 0
			}
			best = c
		}
	}
	return masks
}

// encode returns the runs of a mask of a test image, brought back to its film, "" if
// it is empty.
func (r *run) encode(i int, mask []uint8) (string, error) {
	g := r.ds.Test[i].Geometry
	if g.FilmWidth == 0 {
		side := r.cfg.Inference.FilmSize
		g = resize.Geometry{FilmWidth: side, FilmHeight: side}
	}
	g.Width, g.Height = r.cfg.Size, r.cfg.Size
	film, err := g.Back(&image.Gray{Pix: mask, Stride: g.Width, Rect: image.Rect(0, 0, g.Width, g.Height)})
	if err != nil {
		return "", err
	}
	return rle.Encode(film, &rle.Options{Empty: rle.Blank, Kernel: r.cfg.Inference.NotebookRuns}), nil
}

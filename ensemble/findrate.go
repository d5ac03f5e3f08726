package ensemble

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"os"

	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
	"github.com/hcunet/hcunet/train"
)

// Rates holds the rates that a search for a learning rate suggests.
type Rates struct {
	Points           []train.RatePoint
	Steepest, Valley float64
	Plot             string // file
}

// String returns the result in two sentences.
func (r *Rates) String() string {
	return fmt.Sprintf("the loss falls fastest at a rate of %.2g; in the middle of its longest fall the rate is %.2g\nlook at %s before you use one of them for -rate", r.Steepest, r.Valley, r.Plot)
}

// FindRate searches a learning rate on the training images of the first fold, and
// writes find_rate.png and find_rate.csv to the folder Out. It keeps no weights.
func FindRate(ctx context.Context, cfg Config, opt Options) (*Rates, error) {
	opt.Fold = -1
	r, err := newRun(ctx, cfg, opt)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(opt.Out, 0o777); err != nil {
		return nil, err
	}
	r.out = &folder{dir: opt.Out}
	rates := &Rates{Plot: r.out.path("find_rate.png")}
	nn.Scope(func() { rates.Points, err = r.findRate(ctx) })
	if err != nil {
		return nil, r.withAdvice(err)
	}
	if rates.Steepest, err = train.SteepestRate(rates.Points); err != nil {
		return nil, err
	}
	if rates.Valley, err = train.ValleyRate(rates.Points); err != nil {
		return nil, err
	}
	err = atomicfile.Write(r.out.path("find_rate.csv"), func(w io.Writer) error {
		out := csv.NewWriter(w)
		out.Write([]string{"rate", "loss", "smoothed_loss"})
		for _, p := range rates.Points {
			out.Write([]string{fmt.Sprint(p.Rate), fmt.Sprint(p.Loss), fmt.Sprint(p.Smooth)})
		}
		out.Flush()
		return out.Error()
	})
	if err != nil {
		return nil, err
	}
	search := report.RateSearch{Marks: []report.RateMark{{Name: "steepest", Rate: rates.Steepest}, {Name: "valley", Rate: rates.Valley}}}
	for _, p := range rates.Points {
		search.Rates, search.Loss, search.Smooth = append(search.Rates, p.Rate), append(search.Loss, p.Loss), append(search.Smooth, p.Smooth)
	}
	return rates, report.RatePlot(rates.Plot, "Search for a learning rate", search)
}

func (r *run) findRate(ctx context.Context) ([]train.RatePoint, error) {
	net, err := r.network(0)
	if err != nil {
		return nil, err
	}
	learner, err := r.learner(0, net, nil)
	if err != nil {
		return nil, err
	}
	source, err := r.trainSource(0)
	if err != nil {
		return nil, err
	}
	return learner.FindRate(ctx, source, nil)
}

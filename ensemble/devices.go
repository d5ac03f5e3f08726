package ensemble

import (
	"context"
	"fmt"
	"time"

	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/nn"
)

// TrainApart trains the folds of a run as processes of their own, one at a time on
// each device, which they need not share. argv returns the program that is to train a
// fold on a device: one that calls Run with Options.Fold. All need the same number of
// threads for the bytes that one process would leave. Afterwards Run with
// Options.Gather makes the ensemble.
//
// When a fold fails, the others stop and save what they have; with Options.Resume all
// go on. So they do after an *[Interrupted], the error of a ctx that is done.
func TrainApart(ctx context.Context, cfg Config, opt Options, devices []nn.Device, argv func(fold int, device nn.Device) []string) error {
	if !opt.Resume && begun(opt.Out) {
		return fmt.Errorf("the output folder %s holds a run already; go on with it by -resume, or choose another folder", opt.Out)
	}
	byName := map[string]nn.Device{}
	var places []string
	for i, d := range devices { // two may be the same
		places = append(places, fmt.Sprintf("device %d (%v)", i, d))
		byName[places[i]] = d
	}
	var jobs []dist.Job
	for fold := range cfg.Folds.Number {
		jobs = append(jobs, dist.Job{
			Name: fmt.Sprintf("fold %d", fold),
			Argv: func(place string) []string { return argv(fold, byName[place]) },
		})
	}
	err := dist.Farm(ctx, jobs, places, &dist.LaunchOptions{Grace: time.Minute})
	if err != nil && ctx.Err() != nil {
		return &Interrupted{opt.Out, err}
	}
	return err
}

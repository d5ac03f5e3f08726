package ensemble

import (
	"context"
	"fmt"
	"time"

	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/nn"
)

// TrainApart trains each fold of a run in a separate process, one fold at a time on
// each device. argv returns the command that trains a fold on a device: a program
// that calls Run with Options.Fold. The bytes of the result equal those of one
// process if all processes use the same number of threads. Afterwards Run with
// Options.Gather makes the ensemble.
//
// If a fold fails, the others save their state and stop; when ctx is done, all do,
// and the error is an *[Interrupted]. In both cases Options.Resume continues all
// folds, unless no fold had come so far as to make the folder: then there is nothing
// to continue, and the same call begins again.
func TrainApart(ctx context.Context, cfg Config, opt Options, devices []nn.Device, argv func(fold int, device nn.Device) []string) error {
	if !opt.Resume && begun(opt.Out) {
		return fmt.Errorf("the output folder %s holds a run already; continue it with -resume, or choose another folder", opt.Out)
	}
	byName := map[string]nn.Device{}
	var places []string
	for i, d := range devices { // a device may be listed twice
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

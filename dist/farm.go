package dist

import (
	"context"
	"errors"
	"runtime"
	"sync"
)

// A Job is a program that needs no other one to be done.
type Job struct {
	Name string                      // before its lines, and in errors
	Argv func(place string) []string // the program and its arguments, for a place
}

// Farm runs jobs on this machine, one at a time on each of some places, such as
// devices: a place that is free takes the next job. When a job fails, or when ctx
// ends, the others are interrupted and after a grace period killed, and no more are
// begun; none is left behind, even if this process is killed itself (on Linux). The
// error names the first job that failed and how.
func Farm(ctx context.Context, jobs []Job, places []string, opt *LaunchOptions) error {
	if len(places) == 0 {
		return errors.New("dist: there is no place for the jobs")
	}
	o := opt.filled()
	o.Stdout, o.Stderr = &shared{w: o.Stdout}, &shared{w: o.Stderr}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan Job)
	var all sync.WaitGroup
	for _, place := range places {
		all.Go(func() {
			runtime.LockOSThread() // as in Launch
			defer runtime.UnlockOSThread()
			for job := range next {
				p := process{name: job.Name + " on " + place, label: job.Name, argv: job.Argv(place)}
				if err := o.run(ctx, p); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, job := range jobs {
		select {
		case next <- job:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	all.Wait()
	return context.Cause(ctx)
}

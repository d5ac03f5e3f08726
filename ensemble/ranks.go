package ensemble

import (
	"context"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
)

// first returns whether this process writes files: it is the only one, or the
// first of a group.
func (r *run) first() bool { return r.opt.Group == nil || r.opt.Group.First() }

// share returns the part of each training batch for this process.
func (r *run) share() feed.Share {
	if g := r.opt.Group; g != nil {
		return feed.Share{Rank: g.Rank(), Of: g.Size()}
	}
	return feed.Share{}
}

// agree returns an error unless all processes have the same description and the
// statistics of the same images.
func (r *run) agree() error {
	if r.opt.Group == nil {
		return nil
	}
	text, err := r.cfg.JSON()
	if err != nil {
		return err
	}
	return r.opt.Group.Agree("description or data", string(text))
}

// tell sends from the first process to the others whether a fold is done.
func (r *run) tell(done bool) (bool, error) {
	if r.opt.Group == nil {
		return done, nil
	}
	word := []byte{0}
	if done {
		word[0] = 1
	}
	all, err := r.opt.Group.GatherBytes(word)
	return err == nil && all[0][0] == 1, err
}

// follow is Run for the processes that write nothing. They train the folds together
// with the first process; only the first makes the ensemble.
func (r *run) follow(ctx context.Context) error {
	for f := range r.folds {
		if r.opt.Gather || r.opt.Fold >= 0 && r.opt.Fold != f {
			continue
		}
		done, err := r.tell(false)
		if err != nil {
			return err
		}
		if done {
			continue
		}
		nn.Scope(func() { err = r.followFold(ctx, f) })
		if err != nil {
			return r.withAdvice(err)
		}
	}
	return nil
}

func (r *run) followFold(ctx context.Context, f int) error {
	net, err := r.network(f)
	if err != nil {
		return err
	}
	h := &history{}
	learner, err := r.learner(f, net, []train.Hook{h.hook(), stopHook(ctx)})
	if err != nil {
		return err
	}
	// The first process reads the same state. It writes the next state only after
	// all processes have begun.
	path := (&folder{dir: r.opt.Out}).statePath(f)
	if _, err := (&train.Saver{Path: path}).Resume(learner); err != nil {
		return err
	}
	if err := r.train(ctx, f, learner, h); err != nil {
		return err
	}
	source, err := r.source(r.images.Subset(r.folds[f]))
	if err != nil {
		return err
	}
	return learner.Predict(ctx, source, r.flip(), func(*train.Prediction) error { return nil })
}

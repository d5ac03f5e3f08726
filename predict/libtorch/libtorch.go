// Package libtorch is the backend of package predict that computes with libtorch. It uses
// the same code as the predictions during training.
//
//	p, err := predict.Open("model.safetensors", libtorch.Backend{}, nil)
package libtorch

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/strict"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/predict"
	_ "github.com/hcunet/hcunet/resnet" // registers its encoders
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
)

// A Backend computes on a device. The zero Backend computes on the CPU in float32.
type Backend struct {
	Device    nn.Device
	Precision train.Precision // of convolutions and matrix products; the model's Inference.Precision is ignored
	Threads   int             // threads on the CPU for the whole process (nn.SetThreads); 0 does not change their number

	// Together computes the images of a batch together on the CPU as well; on CUDA they
	// always are. It may be a little faster, but then the last bits of a film's
	// probabilities depend on the other films in its batch, because libtorch sums in
	// another order if the batch size differs.
	Together bool
}

// Open implements predict.Backend. Encoders other than those of package resnet must be
// registered before. It returns an error if the network cannot be built from a.Network,
// if the weights do not fit it, or if it cannot take images of a.Size.
func (b Backend) Open(a *predict.Artifact) (predict.Engine, error) {
	if len(a.Weights) == 0 {
		return nil, fmt.Errorf("libtorch: the artifact has no weights")
	}
	var cfg unet.Config
	if err := strict.Unmarshal("libtorch: the model's network", a.Network, &cfg); err != nil {
		return nil, err
	}
	e := &engine{
		size: a.Size(), channels: a.Task.Channels, flip: train.Flip(a.Inference.Flip),
		together: b.Together || b.Device.CUDA(),
		calls:    make(chan func()), done: make(chan struct{}),
	}
	opened := make(chan error)
	go e.run(func() error { return b.load(e, a, cfg) }, opened)
	if err := <-opened; err != nil {
		<-e.done
		return nil, err
	}
	return e, nil
}

// load builds the networks of all folds.
func (b Backend) load(e *engine, a *predict.Artifact, cfg unet.Config) error {
	if b.Threads != 0 {
		if err := nn.SetThreads(b.Threads); err != nil {
			return err
		}
	}
	input := a.Inference.Input
	for fold, weights := range a.Weights {
		net, err := unet.Build(&nn.Init{Device: b.Device, Blank: true}, int64(input.Channels(a.Task.Channels)), int64(a.Task.Outputs()), cfg)
		if err != nil {
			return err
		}
		if err := nn.LoadState(net, weights); err != nil {
			return fmt.Errorf("libtorch: fold %d: %w", fold, err)
		}
		if err := net.CheckSize(e.size, e.size); err != nil {
			return err
		}
		how := train.Default()
		how.Precision = b.Precision
		l, err := train.New(net, a.Task, how, &train.Parts{Input: train.Input{Mean: input.Mean, Std: input.Std}})
		if err != nil {
			return err
		}
		e.folds = append(e.folds, l)
	}
	return nil
}

// An engine has a goroutine of its own, on which all its tensors are made. They live in a
// scope that ends when the engine is closed.
type engine struct {
	size, channels int
	flip           train.Flip
	together       bool

	folds []*train.Learner
	prob  []float32 // the probabilities of one fold
	mean  predict.Mean

	calls chan func()
	done  chan struct{}
}

// run opens the engine and runs the functions in e.calls until it is closed.
func (e *engine) run(open func() error, opened chan<- error) {
	defer close(e.done)
	nn.Scope(func() {
		err := open()
		opened <- err
		if err != nil {
			return
		}
		for call := range e.calls {
			call()
		}
	})
}

// Probabilities implements predict.Engine.
func (e *engine) Probabilities(images []float32, n int) (prob []float32, err error) {
	made := make(chan struct{})
	e.calls <- func() {
		defer close(made)
		prob, err = e.probabilities(images, n)
	}
	<-made
	return prob, err
}

func (e *engine) probabilities(images []float32, n int) ([]float32, error) {
	step := 1
	if e.together {
		step = n
	}
	size := e.channels * e.size * e.size
	e.mean.Reset()
	for _, fold := range e.folds {
		e.prob = e.prob[:0]
		for i := 0; i < n; i += step {
			b := batch{&feed.Batch{N: step, C: e.channels, H: e.size, W: e.size, Images: images[i*size : (i+step)*size]}}
			err := fold.Predict(context.Background(), b, e.flip, func(p *train.Prediction) error {
				e.prob = append(e.prob, p.Prob...)
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
		e.mean.Add(e.prob)
	}
	return e.mean.Take(), nil
}

// Batch implements predict.Batcher.
func (e *engine) Batch() int {
	if e.together {
		return 8
	}
	return 1
}

// Close implements predict.Engine.
func (e *engine) Close() error {
	close(e.calls)
	<-e.done
	return nil
}

// A batch is a feed.Source of one batch.
type batch struct{ *feed.Batch }

func (b batch) Len() int          { return b.N }
func (b batch) Batches() int      { return 1 }
func (b batch) Name(i int) string { return fmt.Sprintf("image %d", i) }
func (b batch) Epoch(int, int) iter.Seq2[*feed.Batch, error] {
	return func(yield func(*feed.Batch, error) bool) { yield(b.Batch, nil) }
}

// NewArtifact returns the artifact of trained networks, one for each fold. It copies
// their weights. m describes everything else; NewArtifact sets its Network and Folds.
// Networks with different configurations are an error.
func NewArtifact(m predict.Model, nets ...*unet.Net) (*predict.Artifact, error) {
	a := &predict.Artifact{Model: m}
	a.Folds = len(nets)
	for fold, net := range nets {
		network, err := json.Marshal(net.Config())
		if err != nil {
			return nil, fmt.Errorf("libtorch: %w", err)
		}
		if fold > 0 && string(network) != string(a.Network) {
			return nil, fmt.Errorf("libtorch: the networks of folds 0 and %d differ: %s and %s", fold, a.Network, network)
		}
		a.Network = network
		state, err := nn.SaveState(net)
		if err != nil {
			return nil, err
		}
		a.Weights = append(a.Weights, state)
	}
	return a, a.Check()
}

// Package train trains segmentation networks: schedules of learning rates,
// gradients accumulated over micro-batches and clipped, frozen and full phases,
// mixed precision; it stops at any batch and goes on to the same result, and it
// predicts with flip averaging.
//
// A [Learner] is made of values: a model, a task, and, where the usual ones are not
// wanted, a loss, an optimizer, metrics and hooks. A [Config] is the rest, in
// numbers. [Default] and [Kernel] are two of them: the notebook "Hypercolumns
// pneumothorax fastai" as it was meant and as it ran. Nothing else knows which of
// them it is given. Both are tested against fastai 1.0.54, or by their laws.
//
// # Randomness
//
// A run draws from its seed alone, and what it draws for a batch depends on the
// number of the batch in the run. On the CPU with the same number of threads a run
// is the same to the bit each time; another number of threads adds up in another
// order.
package train

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// A Model is what can be trained. *unet.Net is one. A model may say more about
// itself by having more methods: see [Grouped], [Sized] and [Channeled].
type Model interface {
	nn.Module
	// Forward returns scores (N, K, H, W) for images (N, C, H, W).
	Forward(mode nn.Mode, images torch.Tensor) torch.Tensor
}

// Grouped is a model with layer groups: each has a learning rate of its own, and
// the last one is trained while the others are frozen. Without it all parameters
// are one group.
type Grouped interface {
	LayerGroups() [][]nn.Named
}

// Sized is a model that does not take images of every size.
type Sized interface {
	CheckSize(h, w int) error
}

// Channeled is a model that tells how many channels its images have.
type Channeled interface {
	InChannels() int64
}

// Parts are the values that a learner may be given beside its model.
type Parts struct {
	Input Input // what the network is given for an image's values

	Loss loss.Loss // nil means that of the configuration

	// Optimizer makes the optimizer of a phase for its layer groups; nil means that
	// of the configuration.
	Optimizer func(groups [][]nn.Named) (nn.Optimizer, error)

	// Metrics are measured on the validation images at each epoch's end, after the
	// loss.
	Metrics []metric.Metric

	Hooks []Hook

	// Group is the processes that train this network together, nil for one. Each has
	// a learner made the same way and makes the same calls; its source yields its
	// share of each batch, see feed.Share. Gradients, losses and the end of a run are
	// those of all. Validation and [Learner.Predict] are shared out, their results
	// are everywhere.
	Group *dist.Group
}

// A Learner trains one model. The optimizer starts anew with each phase, as
// fastai's does. One call of Fit, FindRate, Settle, SaveState or LoadState works at
// a time; any number of Predicts may at once, but not beside one of these. A call that
// cannot work now returns [ErrBusy].
type Learner struct {
	model  Model
	task   data.Task
	cfg    Config
	parts  Parts
	groups [][]nn.Named
	params []nn.Named
	device nn.Device
	dtype  nn.DType
	input  normalizer
	loss   loss.Loss

	busy    sync.RWMutex // written by who changes the model, read by who looks
	pausing bool         // a Pause hook runs: SaveState may

	at      standing // where the run stands
	called  int      // phases that Fit was asked for
	resumed *resumed // of a phase under way, from LoadState; nil otherwise
	run     *run     // the phase under way; nil between phases
}

// ErrBusy says that a learner is at work and cannot do what it was asked for now.
var ErrBusy = errors.New("train: this learner is training or predicting; wait for it, or take another learner with a model of its own")

// New returns a learner of model for a task, in the number type and on the device
// of the model's parameters. parts may be nil. Call it outside of any [nn.Scope]
// that ends before the learner's work does.
func New(model Model, task data.Task, cfg Config, parts *Parts) (*Learner, error) {
	l := &Learner{model: model, task: task, cfg: cfg, params: nn.Parameters(model)}
	if parts != nil {
		l.parts = *parts
		l.parts.Hooks = slices.Clone(parts.Hooks)
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	if l.loss = l.parts.Loss; l.loss == nil {
		var err error
		if l.loss, err = cfg.loss(task); err != nil {
			return nil, err
		}
	}
	if l.parts.Optimizer == nil {
		l.parts.Optimizer = cfg.Optimizer.New
	}
	err := nn.Try(func() {
		l.device, l.dtype = nn.DeviceOf(l.params[0].Tensor), nn.DTypeOf(l.params[0].Tensor)
		l.input = newNormalizer(l.parts.Input, l.device, l.dtype)
	})
	if err != nil {
		return nil, err
	}
	if cfg.Precision == Float16 && !l.device.CUDA() {
		return nil, fmt.Errorf("train: float16 on %s; it works on CUDA, use bfloat16 or float32 here", l.device)
	}
	if cfg.BatchNorm > 0 {
		nn.SetBatchNormMomentum(model, cfg.BatchNorm)
	}
	if l.parts.Group != nil && cfg.SyncBatchNorm {
		nn.SyncBatchNorm(model, l.parts.Group.SumWithGradient)
	}
	l.at.Scaler = newScaler(cfg.Precision)
	return l, nil
}

// check is what New can see before it makes anything.
func (l *Learner) check() error {
	if err := l.cfg.Check(); err != nil {
		return err
	}
	if err := l.checkGroup(); err != nil {
		return err
	}
	if err := l.task.Check(); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if err := l.parts.Input.check(l.task.Channels); err != nil {
		return err
	}
	if len(l.params) == 0 {
		return fmt.Errorf("train: the model %s has no parameters", l.model)
	}
	if m, ok := l.model.(Channeled); ok && int(m.InChannels()) != l.parts.Input.channels(l.task.Channels) {
		return fmt.Errorf("train: the model takes images of %d channels, the input makes %d of the task's %d; give the input a mean and a deviation for each of the model's",
			m.InChannels(), l.parts.Input.channels(l.task.Channels), l.task.Channels)
	}
	l.groups = [][]nn.Named{l.params}
	if m, ok := l.model.(Grouped); ok {
		l.groups = m.LayerGroups()
	}
	if len(l.groups) == 0 || len(slices.Concat(l.groups...)) != len(l.params) {
		return fmt.Errorf("train: the model's layer groups hold %d of its %d parameters; each must be in one group", len(slices.Concat(l.groups...)), len(l.params))
	}
	var names []string
	for _, h := range l.parts.Hooks {
		if h.Memory == nil {
			continue
		}
		if h.Name == "" || slices.Contains(names, h.Name) {
			return fmt.Errorf("train: two hooks with a memory are called %q, or one has no name; each needs its own", h.Name)
		}
		names = append(names, h.Name)
	}
	return nil
}

// LayerGroups returns the number of layer groups: of rates in a phase.
func (l *Learner) LayerGroups() int { return len(l.groups) }

// Task returns the task that the learner was made for.
func (l *Learner) Task() data.Task { return l.task }

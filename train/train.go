// Package train trains segmentation networks, with learning rate schedules,
// accumulation and clipping of gradients, frozen and full phases, and mixed
// precision. A run can be stopped at any batch and continued with the same
// result. The package also predicts, with flip averaging.
//
// A [Learner] is made from a model, a task, a [Config] and, optionally, the user's
// own loss, optimizer, metrics and hooks. [Kernel] returns the Config that trains
// exactly as the notebook "Hypercolumns pneumothorax fastai", and [Default] the
// same without its errors. No other code asks which of the two it got. Both are
// tested against fastai 1.0.54 or against mathematical laws.
//
// # Randomness
//
// The random numbers of a run depend only on its seed, and for a batch on the
// number of the batch in the run. On the CPU with the same number of threads, two
// runs are equal to the bit; another number of threads adds numbers in another
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

// A Model is a network that can be trained. *unet.Net is one. A model may also
// implement [Grouped], [Sized] and [Channeled].
type Model interface {
	nn.Module
	// Forward returns scores (N, K, H, W) for images (N, C, H, W).
	Forward(mode nn.Mode, images torch.Tensor) torch.Tensor
}

// Grouped is a model with layer groups. Each group has its own learning rate,
// and the last one is trained while the others are frozen. The parameters of
// other models are one group.
type Grouped interface {
	LayerGroups() [][]nn.Named
}

// Sized is a model that does not accept images of every size.
type Sized interface {
	CheckSize(h, w int) error
}

// Channeled is a model that says how many channels its images have.
type Channeled interface {
	InChannels() int64
}

// Parts are the optional parts of a learner.
type Parts struct {
	Input Input // normalization of the images for the network

	Loss loss.Loss // nil means the loss of the configuration

	// Optimizer makes the optimizer of a phase for its layer groups; nil means the
	// optimizer of the configuration.
	Optimizer func(groups [][]nn.Named) (nn.Optimizer, error)

	// Metrics are measured on the validation images at the end of each epoch,
	// after the loss.
	Metrics []metric.Metric

	Hooks []Hook

	// DeviceData is the number of bytes of the device's memory that the training images
	// and masks may take; 0 means none. If the source of Fit or FindRate is a
	// [feed.Planner] whose images have masks and fit, they are copied to the device once
	// per call, and batches are made there. Otherwise batches are made on the CPU.
	// Learner.DeviceData says which it was. A value of 8 bits takes one byte, a value of
	// 16 bits two, and a pixel of a mask one. Each of several processes copies all of them.
	// On the CPU this is slower than batches of package augment.
	//
	// On the device, images that are only copied, flipped and cropped have the same bits
	// as on the CPU; others differ by float32 rounding. Masks are the same, except that a
	// pixel exactly halfway between two pixels of the source may get the other one. Drawn
	// transforms have such a pixel only at the centre of an image, if they rotate it and
	// scale a side of even length to an odd one.
	DeviceData int64

	// Group is the group of processes that train this network together, nil for one
	// process. Each must make its learner in the same way and make the same calls;
	// its source yields its share of each batch, see feed.Share. Gradients and losses
	// are those of all processes, and a run ends in all at the same batch. The
	// processes share the work of validation and [Learner.Predict], and each gets all
	// results.
	Group *dist.Group
}

// A Learner trains one model. Each phase has a new optimizer, as in fastai. Only one
// call of Fit, FindRate, Settle, SaveState or LoadState may run at a time. Any number
// of calls of Predict may run at once, but not together with one of these. A call that
// cannot run now returns [ErrBusy].
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

	busy    sync.RWMutex // write-locked by calls that change the model, read-locked by Predict
	pausing bool         // a Pause hook is running, so SaveState is allowed

	predictions predictions // recorded on a GPU
	recordings  Recordings  // guarded by the mutex of predictions
	deviceData  DeviceData  // guarded by the same mutex
	set         *deviceSet  // the training images on the device; nil if batches are made on the CPU

	at      standing // the position of the run
	called  int      // number of phases that were passed to Fit
	resumed *resumed // of an interrupted phase, from LoadState; nil otherwise
	run     *run     // the current phase; nil between phases
}

// ErrBusy is the error if a learner is working and cannot run another call now.
var ErrBusy = errors.New("train: this learner is training or predicting; wait for it, or take another learner with a model of its own")

// New returns a learner that trains model for a task, with the number type and
// device of the model's parameters. parts may be nil. Call it outside of any
// [nn.Scope] that ends before the learner is done.
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
	if l.tensorCores() {
		if err := nn.SetChannelsLast(model); err != nil {
			return nil, err
		}
		l.input.channelsLast = true
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

// tensorCores returns whether a GPU computes in a type that its tensor cores have.
func (l *Learner) tensorCores() bool { return l.device.CUDA() && l.cfg.Precision != Full }

// check returns the errors that New can find before it makes anything.
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
	if l.parts.DeviceData < 0 {
		return fmt.Errorf("train: training images may take %d bytes on the device; wanted 0 or more", l.parts.DeviceData)
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

// LayerGroups returns the number of layer groups, which is the number of rates
// in a phase.
func (l *Learner) LayerGroups() int { return len(l.groups) }

// Task returns the task that the learner was made for.
func (l *Learner) Task() data.Task { return l.task }

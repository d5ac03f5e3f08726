package train

import (
	"fmt"
	"math"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/internal/words"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
)

// A Config says how a network is trained. A Config that is written to JSON and
// read back is equal. A value of 0 means 0, not a default, so start from
// [Default] or [Kernel].
type Config struct {
	// Loss is the loss to minimize, unless Parts has one. An empty Loss means
	// cross-entropy, or binary cross-entropy if the task has sigmoids.
	Loss loss.Config `json:"loss"`

	// MicroBatches is the number of batches whose gradients make one step, at
	// least 1. Accumulation says how they do.
	MicroBatches int          `json:"micro_batches"`
	Accumulation Accumulation `json:"accumulation"`

	Clip        float64 `json:"clip"`         // largest norm of a gradient; 0 means no clipping
	WeightDecay float64 `json:"weight_decay"` // decoupled from the gradient

	// Optimizer is the optimizer, unless Parts has one.
	Optimizer nn.OptimizerConfig `json:"optimizer"`

	// BatchNorm is the weight of a micro-batch in the running statistics; 0 keeps
	// the weight that each layer has, 0.1 by default.
	BatchNorm float64 `json:"batch_norm_momentum"`

	// SyncBatchNorm normalizes with the statistics of the batches of all processes
	// together. Without it each process normalizes with its own statistics, and the
	// running statistics of the first process are used. It has no effect with one
	// process.
	SyncBatchNorm bool `json:"sync_batch_norm"`

	Precision Precision `json:"precision"`
	Seed      uint64    `json:"seed"` // seed of the random numbers in the network, for dropout
}

// Default returns the training of the notebook without its errors: n
// micro-batches give exactly the gradient of one batch that is n times as
// large, gradients are averaged before they are clipped, and no step is taken
// without gradients.
func Default() Config {
	return Config{
		Optimizer:    nn.DefaultAdam(),
		MicroBatches: 1,
		Clip:         1,    // the notebook's
		WeightDecay:  0.01, // fastai 1.0.54, defaults.wd
	}
}

// Kernel returns the training exactly as in the notebook, with its errors, for
// its batches of 16 images; see [Notebook] for its accumulation. For another
// batch size, set BatchNorm to 0.1*size/64.
func Kernel() Config {
	c := Default()
	c.MicroBatches = 4
	c.Accumulation = Notebook
	c.Optimizer = nn.KernelAdam()
	c.BatchNorm = 0.1 * 16 / 64
	return c
}

// loss returns the configured loss for a task.
func (c Config) loss(t data.Task) (loss.Loss, error) {
	cfg := c.Loss
	if len(cfg) == 0 {
		cfg = loss.DefaultConfig(t.Output)
		if t.Ignore {
			ignored := data.Ignored
			cfg = loss.Config{{Weight: 1, Parameters: loss.CrossEntropy{IgnoreIndex: &ignored}}}
			if t.Output == data.Sigmoid {
				cfg[0].Parameters = loss.BCE{IgnoreIndex: &ignored}
			}
		}
	}
	return cfg.New(t.Output, len(t.Classes))
}

// Check returns an error if the configuration is not valid.
func (c Config) Check() error {
	switch {
	case c.MicroBatches < 1:
		return fmt.Errorf("train: accumulation of %d micro-batches, wanted at least 1", c.MicroBatches)
	case !(c.Clip >= 0):
		return fmt.Errorf("train: gradients clipped to %v, wanted a positive norm, or 0 for none", c.Clip)
	case !(c.WeightDecay >= 0) || math.IsInf(c.WeightDecay, 0):
		return fmt.Errorf("train: weight decay %v, wanted 0 or a positive number", c.WeightDecay)
	case !(c.BatchNorm >= 0 && c.BatchNorm <= 1):
		return fmt.Errorf("train: batch norm momentum %v, wanted a number in (0, 1], or 0 for the layers' own", c.BatchNorm)
	}
	if err := c.Optimizer.Check(); err != nil {
		return err
	}
	if _, err := c.Accumulation.MarshalText(); err != nil {
		return err
	}
	_, err := c.Precision.MarshalText()
	return err
}

// An Accumulation says how the gradients of micro-batches become a step.
type Accumulation int

const (
	// Mean takes a step after every n micro-batches, and at the end of an epoch
	// for those that remain. It uses the mean gradient of their images, which is
	// clipped once.
	Mean Accumulation = iota

	// Notebook is the notebook's AccumulateStep with its GradientClipping: the sum
	// is clipped after every micro-batch; a step comes after every n-1 of them, on
	// the sum divided by their number; validation batches count too, so that an
	// epoch with validation always ends in a step, if need be on a gradient of zero.
	//
	// Source: the notebook, cell 4; fastai 1.0.54, callback order GradientClipping,
	// AccumulateStep, OneCycleScheduler.
	Notebook
)

// A Precision is the number type of a forward pass. Weights, gradients and losses
// keep the type of the network's parameters.
type Precision int

const (
	// Full computes in the type of the network's parameters, usually float32.
	Full Precision = iota
	// BFloat16 computes convolutions and matrix products in bfloat16 (autocast). On a CPU
	// without instructions for it a convolution computes in float32 and rounds its result,
	// which takes less memory than Full and about the same time.
	BFloat16
	// Float16 computes them in float16, only on CUDA. The loss is scaled so that
	// small gradients do not vanish; a step whose gradients overflow is skipped
	// and counted.
	Float16
)

var (
	accumulationWords = words.Choice[Accumulation]{What: "accumulation", Words: []string{"mean", "notebook"}}
	precisionWords    = words.Choice[Precision]{What: "precision", Words: []string{"float32", "bfloat16", "float16"}}
)

// String returns "mean" or "notebook".
func (a Accumulation) String() string { return accumulationWords.Word(a) }

// MarshalText implements encoding.TextMarshaler.
func (a Accumulation) MarshalText() ([]byte, error) { return accumulationWords.Marshal(a) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Accumulation) UnmarshalText(b []byte) (err error) {
	*a, err = accumulationWords.Parse(b)
	return err
}

// String returns "float32", "bfloat16" or "float16".
func (p Precision) String() string { return precisionWords.Word(p) }

// MarshalText implements encoding.TextMarshaler.
func (p Precision) MarshalText() ([]byte, error) { return precisionWords.Marshal(p) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Precision) UnmarshalText(b []byte) (err error) {
	*p, err = precisionWords.Parse(b)
	return err
}

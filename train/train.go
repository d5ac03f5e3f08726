// Package train trains segmentation networks the way the notebook "Hypercolumns
// pneumothorax fastai" does: one-cycle schedules, first with a frozen encoder and
// then with discriminative rates, gradients accumulated over micro-batches and
// clipped, Adam with decoupled weight decay; and it predicts with flip averaging.
//
// It knows a [Model] and a [feed.Source] of batches, not any particular network.
//
// # Recipes
//
// [Default] is the system as it was meant: n micro-batches give exactly the
// gradient of one n times as large, it is averaged before it is clipped, and no
// step is taken on nothing. [Kernel] is the system as it ran, accidents included:
// a step every n-1 micro-batches, clipping of the sum after each of them, and a
// step at each epoch's end that divides by a number in which validation batches
// count. Both are tested against fastai 1.0.54, or by their laws.
package train

import (
	"fmt"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// A Model is what can be trained. *unet.Net is one.
type Model interface {
	nn.Module
	// Forward returns class scores (N, K, H, W) for images (N, C, H, W).
	Forward(mode nn.Mode, images torch.Tensor) torch.Tensor
	// LayerGroups returns the trained tensors in groups that have a learning rate
	// of their own; the last one is trained while the others are frozen.
	LayerGroups() [][]nn.Named
}

// A Recipe is one of two ways to do the same.
type Recipe int

const (
	Default Recipe = iota // the system without its accidents
	Kernel                // the system as the notebook ran it
)

// ParseRecipe reads "default" or "kernel".
func ParseRecipe(s string) (Recipe, error) {
	switch s {
	case "default":
		return Default, nil
	case "kernel":
		return Kernel, nil
	}
	return 0, fmt.Errorf("train: recipe %q, wanted default or kernel", s)
}

func (r Recipe) String() string {
	if r == Kernel {
		return "kernel"
	}
	return "default"
}

// Input maps a batch's values to what a network was made for: (x - Mean)/Std per
// channel, in float32. Images of one channel are spread over as many as Mean has.
// The zero Input changes nothing.
type Input struct {
	Mean, Std []float64
}

func (in Input) check() error {
	if len(in.Mean) != len(in.Std) {
		return fmt.Errorf("train: input has %d means and %d standard deviations", len(in.Mean), len(in.Std))
	}
	for _, s := range in.Std {
		if !(s > 0) {
			return fmt.Errorf("train: input has standard deviation %v, wanted a positive number", s)
		}
	}
	return nil
}

// tensor returns the batch's images on a device, normalized.
func (in Input) tensor(b *feed.Batch, d nn.Device, dtype nn.DType) torch.Tensor {
	x := must(nn.FromSlice(d, b.Images, int64(b.N), int64(b.C), int64(b.H), int64(b.W)))
	x = nn.To(x, d, dtype)
	if len(in.Mean) == 0 {
		return x
	}
	constant := func(v []float64) torch.Tensor {
		return nn.To(must(nn.FromSlice(d, v, 1, int64(len(v)), 1, 1)), d, dtype)
	}
	return nn.Div(nn.Sub(x, constant(in.Mean)), constant(in.Std))
}

// targets returns a batch's masks as classes (N, H, W).
func targets(b *feed.Batch, d nn.Device) torch.Tensor {
	return nn.To(must(nn.FromSlice(d, b.Targets, int64(b.N), int64(b.H), int64(b.W))), d, nn.Long)
}

// must panics with libtorch's error, for nn.Try to catch.
func must(t torch.Tensor, err error) torch.Tensor {
	if err != nil {
		panic(err)
	}
	return t
}

package train

import (
	"errors"
	"fmt"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// Input normalizes the values of a batch for the network: (x - Mean)/Std per
// channel, in the number type of the network. Images of one channel are copied to
// as many channels as Mean has. The zero Input changes nothing.
type Input struct {
	Mean []float64 `json:"mean"`
	Std  []float64 `json:"std"`
}

// channels returns the number of channels that the network gets for images with
// that many channels.
func (in Input) channels(image int) int {
	if len(in.Mean) == 0 {
		return image
	}
	return len(in.Mean)
}

func (in Input) check(image int) error {
	if len(in.Mean) != len(in.Std) {
		return fmt.Errorf("train: input has %d means and %d standard deviations", len(in.Mean), len(in.Std))
	}
	if n := len(in.Mean); n > 0 && n != image && image != 1 {
		return fmt.Errorf("train: input of %d means for images of %d channels; give one for each; only grey images are copied to more channels", n, image)
	}
	for c := range in.Mean {
		if !finite(in.Mean[c]) {
			return fmt.Errorf("train: input has mean %v, wanted a number", in.Mean[c])
		}
		if s := in.Std[c]; !(s > 0) || !finite(s) {
			return fmt.Errorf("train: input has standard deviation %v, wanted a positive number", s)
		}
	}
	return nil
}

// A normalizer holds the numbers of an Input as tensors on the device of the
// network.
type normalizer struct {
	device       nn.Device
	dtype        nn.DType
	mean, std    *torch.Tensor // (1, C, 1, 1); nil if the input changes nothing
	channelsLast bool          // the memory format of the result
}

func newNormalizer(in Input, d nn.Device, dtype nn.DType) normalizer {
	n := normalizer{device: d, dtype: dtype}
	if len(in.Mean) == 0 {
		return n
	}
	constant := func(v []float64) *torch.Tensor {
		t := nn.To(must(nn.FromSlice(d, v, 1, int64(len(v)), 1, 1)), d, dtype)
		return &t
	}
	n.mean, n.std = constant(in.Mean), constant(in.Std)
	return n
}

// upload returns the images (N, C, H, W) of a batch as they are, on the device of the network.
func (n normalizer) upload(b *feed.Batch) torch.Tensor {
	return must(nn.FromSlice(n.device, b.Images, int64(b.N), int64(b.C), int64(b.H), int64(b.W)))
}

// uploadTargets returns the masks (N, H, W) of a batch as they are, on that device.
func (n normalizer) uploadTargets(b *feed.Batch) torch.Tensor {
	return must(nn.FromSlice(n.device, b.Targets, int64(b.N), int64(b.H), int64(b.W)))
}

// uploaded returns the images (N, C, H, W) in float32 and the masks (N, H, W) of a
// training batch on the device. If the batch is planned, they are made there.
func (l *Learner) uploaded(b *feed.Batch) (images, targets torch.Tensor) {
	if b.Plans != nil {
		return l.set.batch(b)
	}
	return l.input.upload(b), l.input.uploadTargets(b)
}

// images returns uploaded images as the network needs them.
func (n normalizer) images(x torch.Tensor) torch.Tensor {
	x = nn.To(x, n.device, n.dtype)
	if n.mean != nil {
		x = nn.Div(nn.Sub(x, *n.mean), *n.std)
	}
	if n.channelsLast {
		x = nn.ChannelsLast(x)
	}
	return x
}

// classes returns uploaded masks as the losses need them.
func (n normalizer) classes(y torch.Tensor) torch.Tensor { return nn.To(y, n.device, nn.Long) }

// checkTraining returns an error if the learner cannot train on the batch.
func (l *Learner) checkTraining(b *feed.Batch) error {
	if b.Plans == nil {
		return l.checkBatch(b, true)
	}
	if err := l.checkSize(b, true); err != nil {
		return err
	}
	return l.set.check(b) // the classes of its targets were checked when they were copied to the device
}

// checkBatch returns an error if the learner cannot use the batch.
func (l *Learner) checkBatch(b *feed.Batch, targets bool) error {
	if b.Plans != nil {
		return errors.New("a planned batch; only training batches are made on the device, Epoch must yield pixels")
	}
	if err := l.checkSize(b, targets); err != nil {
		return err
	}
	if i := l.badTarget(b.Targets); i >= 0 {
		return fmt.Errorf("a target of class %d at pixel %d of image %d of the batch; the task has classes 0 to %d",
			b.Targets[i], i%(b.H*b.W), i/(b.H*b.W), len(l.task.Classes)-1)
	}
	return nil
}

func (l *Learner) checkSize(b *feed.Batch, targets bool) error {
	if err := b.Check(targets); err != nil {
		return err
	}
	if b.C != l.task.Channels {
		return fmt.Errorf("images of %d channels; the task has %d", b.C, l.task.Channels)
	}
	if m, ok := l.model.(Sized); ok {
		if err := m.CheckSize(b.H, b.W); err != nil {
			return err
		}
	}
	return nil
}

// must panics with libtorch's error, for nn.Try to catch.
func must(t torch.Tensor, err error) torch.Tensor {
	if err != nil {
		panic(err)
	}
	return t
}

package ensemble

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
	_ "github.com/hcunet/hcunet/resnet" // registers its encoders
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
)

// Config are the choices of a run. [Notebook] gives the notebook's.
type Config struct {
	Data  string        // folder in the notebook's layout: train/, masks/, test/
	Masks data.MaskRule // how the values of its masks become classes
	Out   string        // folder to make; nothing is written before the input is known to be good

	Arch string // encoder: resnet34 or resnet18

	// Weights to start from: torchvision's of the encoder, or those of a whole
	// network as fold0.safetensors or fastai's learn.save has them. A file, or a
	// name that checkpoint.Fetch knows; "" starts from random weights.
	Weights string

	Recipe    Recipe
	Device    nn.Device
	Precision train.Precision

	Size       int // width and height of what the network sees, a multiple of 32
	Batch      int
	Accumulate int // micro-batches a step
	Folds      int
	Split      Split
	Seed       uint32

	FrozenEpochs int // with the encoder frozen; without Weights everything is trained in them
	FullEpochs   int
	Rate         float64 // highest of the frozen phase; the other's are Rate/80 to Rate/2
	Clip         float64 // largest norm of a gradient; 0 for none

	Mean, Std float64 // of the input; both 0 take those of the data, see Statistics
	Threshold float64 // of the Dice after each epoch
	Noise     float64 // pixels, or sum of probabilities, below which a mask is empty; negative for the notebook's share of the area
	FilmSize  int     // width and height of the films that the submission is about

	Progress *report.Progress // nil to work in silence
	Command  []string         // what to note as the command; may be empty
}

// A Split says how images are divided into folds.
type Split string

const (
	AtRandom  Split = "random"  // as the notebook: scikit-learn's KFold, shuffled
	ByArea    Split = "area"    // alike in mask area
	ByPatient Split = "patient" // all images of a patient in one fold
)

// Notebook returns the notebook's choices, for 256x256 images.
func Notebook() Config {
	return Config{
		Arch: "resnet34", Size: 256, Batch: 16, Accumulate: 4, Folds: 4, Split: AtRandom, Seed: 2019,
		FrozenEpochs: 8, FullEpochs: 10, Rate: 1e-3, Clip: 1,
		Threshold: metric.KernelThreshold, Noise: -1, FilmSize: 1024,
	}
}

// check returns an error for the first choice that cannot be.
func (c *Config) check() error {
	positive := []struct {
		name  string
		value int
	}{{"size", c.Size}, {"batch", c.Batch}, {"accumulation", c.Accumulate}, {"film size", c.FilmSize}}
	for _, p := range positive {
		if p.value < 1 {
			return fmt.Errorf("%s is %d, wanted at least 1", p.name, p.value)
		}
	}
	switch {
	case c.Data == "":
		return fmt.Errorf("no data folder was given")
	case c.Out == "":
		return fmt.Errorf("no output folder was given")
	case c.Size%stride != 0:
		return fmt.Errorf("size %d is no multiple of %d; use %d", c.Size, stride, (c.Size/stride+1)*stride)
	case c.Arch != "resnet34" && c.Arch != "resnet18":
		return fmt.Errorf("encoder %q, wanted resnet34 or resnet18", c.Arch)
	case c.Split != AtRandom && c.Split != ByArea && c.Split != ByPatient:
		return fmt.Errorf("split %q, wanted %s, %s or %s", c.Split, AtRandom, ByArea, ByPatient)
	case c.FrozenEpochs < 0 || c.FullEpochs < 0:
		return fmt.Errorf("%d and %d epochs, wanted at least 0 each", c.FrozenEpochs, c.FullEpochs)
	case !(c.Rate > 0):
		return fmt.Errorf("learning rate %v, wanted a positive number", c.Rate)
	case (c.Mean == 0) != (c.Std == 0) || c.Std < 0:
		return fmt.Errorf("mean %v with standard deviation %v; give both or neither", c.Mean, c.Std)
	case c.Mean < 0 || c.Mean > 1 || c.Std > 1:
		return fmt.Errorf("mean %v and standard deviation %v; wanted those of values in [0, 1], so divide those of bytes by 255", c.Mean, c.Std)
	case !(c.Threshold >= 0 && c.Threshold < 1):
		return fmt.Errorf("threshold %v, wanted a probability below 1", c.Threshold)
	}
	return nil
}

// stride is what a ResNet's five halvings make of an image's size.
const stride = 32

// noise returns the noise limit at the network's size.
func (c *Config) noise() float64 {
	if c.Noise >= 0 {
		return c.Noise
	}
	return metric.NoiseArea(c.Size, c.Size)
}

// statistics returns mean and standard deviation of the input: the given ones, or
// those that prepare left beside the data, or under the kernel recipe the notebook's
// for 128x128 and 256x256, or else those of the training images.
func (c *Config) statistics(ds *data.Dataset, images *feed.Images) (mean, std float64) {
	switch {
	case c.Std > 0:
		return c.Mean, c.Std
	case ds.Std != nil:
		return ds.Mean[0], ds.Std[0]
	case c.Recipe == Kernel && c.Size == 256:
		return 0.540, 0.264 // the notebook, cell 2
	case c.Recipe == Kernel && c.Size == 128:
		return 0.615, 0.291
	}
	means, stds := images.Statistics()
	return means[0], stds[0]
}

// encoderWeights reads the encoder's weights, fetching published ones by name. It
// returns nil where none are wanted.
func (c *Config) encoderWeights(ctx context.Context) (*checkpoint.File, error) {
	if c.Weights == "" {
		return nil, nil
	}
	path := c.Weights
	_, err := os.Stat(path)
	if p, ok := checkpoint.FindPublished(path); err != nil && ok {
		if p.Architecture != c.Arch {
			return nil, fmt.Errorf("%s are weights of a %s, the encoder is a %s; choose the one or the other", path, p.Architecture, c.Arch)
		}
		begun := false
		path, err = checkpoint.Fetch(ctx, path, &checkpoint.FetchOptions{Progress: func(done, total int64) {
			if !begun {
				c.Progress.StartBytes(c.Weights, max(total, 0))
				begun = true
			}
			c.Progress.Set(done)
		}})
		c.Progress.End()
		if err != nil {
			return nil, err
		}
	}
	f, err := checkpoint.Open(path)
	if err == nil && len(f.Tensors) == 0 {
		err = fmt.Errorf("%s holds no tensors; give torchvision's weights of the encoder, or those of a whole network", path)
	}
	return f, err
}

// training returns how a fold's network is trained.
func (c *Config) training(fold int) train.Config {
	cfg := train.Default()
	if c.Recipe == Kernel {
		cfg = train.Kernel()
	}
	cfg.MicroBatches, cfg.Clip = c.Accumulate, c.Clip
	cfg.BatchNorm = c.batchNormMomentum()
	cfg.Precision = c.Precision
	cfg.Seed = random.New(uint64(c.Seed), "fold", uint64(fold)).Uint64()
	return cfg
}

// batchNormMomentum returns the weight of a micro-batch in the running statistics.
// The notebook's is 0.1*batch/64, which is 0.1 a step for its 64 images a step;
// the default recipe keeps it at 0.1 a step for any, so that the statistics of a
// short training on small batches settle, too.
func (c *Config) batchNormMomentum() float64 {
	if c.Recipe == Kernel {
		return 0.1 * float64(c.Batch) / 64
	}
	return 0.1 / float64(c.Accumulate)
}

// network returns a new network for a fold, its encoder with the given weights if
// there are any. It differs between folds, and is the same in every run of a seed.
func (c *Config) network(fold int, weights *checkpoint.File) (net *unet.Net, err error) {
	tryErr := nn.Try(func() {
		in := nn.NewInit(c.Device, uint64(c.Seed), uint64(fold))
		if net, err = unet.Build(in, 3, 2, unet.Config{Encoder: c.Arch, DetachSkips: c.Recipe == Kernel}); err != nil {
			return
		}
		switch {
		case weights == nil:
		case strings.HasPrefix(weights.Tensors[0].Name, "layers."):
			err = nn.LoadState(net, weights)
		default:
			err = net.Encoder().LoadWeights(weights)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Weights, err)
	}
	return net, tryErr
}

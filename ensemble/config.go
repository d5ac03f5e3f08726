package ensemble

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/encoder"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/strict"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
)

// Version is that of the description's format.
const Version = 1

// A Config describes what is trained on what, and how: all that decides the bytes of
// the result. It goes to JSON and comes back equal. [Default] and [Kernel] fill it in.
type Config struct {
	Version int `json:"version"` // of the format

	Data string    `json:"data"` // folder with train/, masks/ and test/
	Task data.Task `json:"task"` // no classes: those of the folder

	// Preparation is how the images of the folder were made. Left out, it is what the
	// folder says; else the folder must say the same.
	Preparation *data.Preparation `json:"preparation"`

	Size  int         `json:"size"`  // width and height in pixels of what the network sees
	Input train.Input `json:"input"` // left out: the statistics of the folder or else of its images; grey images are spread over three channels

	Network unet.Config `json:"network"`

	// Weights to start from: those of the encoder, or of a whole network such as
	// fold0.safetensors. A file, or a name that checkpoint.Fetch knows; "" starts from
	// random weights.
	Weights string `json:"weights"`

	Augmentation augment.Config `json:"augmentation"`
	Batch        int            `json:"batch"`      // images a micro-batch
	Last         feed.Last      `json:"last_batch"` // of an epoch of training
	Training     train.Config   `json:"training"`   // its seed is 0: that of the run counts
	Phases       []train.Phase  `json:"phases"`

	Folds Folds  `json:"folds"`
	Seed  uint32 `json:"seed"` // of folds, weights, order, transforms and dropout

	Validation Validation `json:"validation"`
	Inference  Inference  `json:"inference"`
}

// Folds say how the images are divided.
type Folds struct {
	Number int   `json:"number"`
	Split  Split `json:"split"`
}

// Validation is how the score after each epoch is measured.
type Validation struct {
	Threshold float64 `json:"threshold"`  // probability above which a pixel counts
	MinPixels float64 `json:"min_pixels"` // fewer of them count as none

	// What is measured beside the Dice, which with two classes is all otherwise; see
	// metric.Scores. Curves are what needs no threshold, and Distances, which take
	// longest, those between outlines, in pixels.
	Curves    bool `json:"curves"`
	Distances bool `json:"distances"`
}

// Inference is how probabilities become masks.
type Inference struct {
	// FlipAverage takes the mean over an image and its mirror image. It is wrong where
	// classes mirror into one another, as a left and a right lung do.
	FlipAverage bool `json:"flip_average"`

	MinSum float64    `json:"min_sum"` // a class whose probabilities in an image sum to less is not in it: the notebook's noise rule; 0 for none
	Rule   RuleChoice `json:"rule"`    // which of the rules that are searched makes the submission

	FilmSize     int  `json:"film_size"`     // width and height of test films of which the folder does not know the size
	NotebookRuns bool `json:"notebook_runs"` // write submission.csv with the notebook's encoder, which drops a mask's last pixel in some places; see rle.Options
}

// A Recipe fills in a description, for images of a size and micro-batches of so many
// images, of which some make a step. What depends on these is a number afterwards.
type Recipe func(size, batch, microBatches int) Config

// Recipes are the known ones by name.
var Recipes = map[string]Recipe{"default": Default, "kernel": Kernel}

// Default returns the system as it was meant. The notebook's sizes are 256, 16 and 4.
func Default(size, batch, microBatches int) Config {
	c := Config{
		Version:      Version,
		Task:         data.Task{Channels: 1},
		Size:         size,
		Network:      unet.Config{Encoder: "resnet34"},
		Augmentation: augment.Default(),
		Batch:        batch, Last: feed.DropLone,
		Training: train.Default(),
		Phases:   NotebookPhases(8, 10, 1e-3, false),
		Folds:    Folds{Number: 4},
		Seed:     2019,
		Validation: Validation{
			Threshold: metric.KernelThreshold,
			MinPixels: metric.NoiseArea(size, size),
		},
		Inference: Inference{FlipAverage: true, MinSum: metric.NoiseArea(size, size), FilmSize: 1024},
	}
	c.Training.MicroBatches = microBatches
	// 0.1 a step, so that the statistics of a short training on small batches settle.
	c.Training.BatchNorm = 0.1 / float64(max(microBatches, 1))
	return c
}

// Kernel returns the system as the notebook ran it, accidents included.
func Kernel(size, batch, microBatches int) Config {
	c := Default(size, batch, microBatches)
	c.Task.Masks = data.WhiteOnly
	c.Network.DetachSkips = true
	c.Last = feed.DropLast
	c.Training = train.Kernel()
	c.Training.MicroBatches = microBatches
	c.Training.BatchNorm = 0.1 * float64(batch) / 64
	c.Inference.NotebookRuns = true
	switch size { // the notebook, cell 2
	case 256:
		c.Input = spread(0.540, 0.264)
	case 128:
		c.Input = spread(0.615, 0.291)
	}
	return c
}

// spread returns the input of a network for colours that sees grey images.
func spread(mean, std float64) train.Input {
	return train.Input{Mean: []float64{mean, mean, mean}, Std: []float64{std, std, std}}
}

// NotebookPhases returns the notebook's: with the encoder frozen at a highest rate,
// then all from rate/80 in the first layers to rate/2. Without pretrained weights
// there is nothing to keep frozen. A phase of no epochs is left out.
func NotebookPhases(frozen, full int, rate float64, pretrained bool) []train.Phase {
	const groups = 3 // of the networks on a ResNet
	even, err := train.EvenRates(rate/80, rate/2, groups)
	if err != nil { // Check says so
		even = train.SameRates(rate, groups)
	}
	first := train.Phase{Name: "first", Epochs: frozen, Rates: train.SameRates(rate, groups), Schedule: train.OneCycle{}}
	if pretrained {
		first.Name, first.Frozen = "frozen", true
	}
	phases := []train.Phase{first, {Name: "full", Epochs: full, Rates: even, Schedule: train.OneCycle{}}}
	return slices.DeleteFunc(phases, func(p train.Phase) bool { return p.Epochs == 0 })
}

// ReadConfig reads a description. What is missing is as in [Default] with the
// notebook's sizes; an unknown field is an error.
func ReadConfig(b []byte) (Config, error) {
	c := Default(256, 16, 4)
	c.Version = 0
	if err := strict.Decode("configuration", b, &c); err != nil {
		return Config{}, err
	}
	if c.Version != Version {
		return Config{}, fmt.Errorf("configuration: version %d; this program reads version %d", c.Version, Version)
	}
	return c, nil
}

// OpenConfig reads the description in a file.
func OpenConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, err
	}
	c, err := ReadConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// JSON returns the description as a file holds it.
func (c Config) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	return append(b, '\n'), err
}

// Check returns an error for the first choice that cannot be, as far as the
// description alone shows it.
func (c Config) Check() error {
	switch {
	case c.Version != Version:
		return fmt.Errorf("version %d of the description, wanted %d", c.Version, Version)
	case c.Data == "":
		return fmt.Errorf("no data folder was given")
	case c.Size < 1:
		return fmt.Errorf("size %d, wanted a positive number of pixels", c.Size)
	case c.Batch < 1:
		return fmt.Errorf("batch of %d images, wanted at least 1", c.Batch)
	case len(c.Phases) == 0:
		return fmt.Errorf("no phase of training has an epoch; an untrained network predicts nothing")
	case c.Folds.Number < 2:
		return fmt.Errorf("%d folds, wanted at least 2", c.Folds.Number)
	case c.Training.Seed != 0:
		return fmt.Errorf("training.seed is %d; leave it out, the run's seed is the field seed", c.Training.Seed)
	case !(c.Validation.Threshold >= 0 && c.Validation.Threshold < 1):
		return fmt.Errorf("threshold %v, wanted a probability below 1", c.Validation.Threshold)
	case !(c.Validation.MinPixels >= 0) || math.IsInf(c.Validation.MinPixels, 0):
		return fmt.Errorf("noise of %v pixels in validation, wanted 0 or more", c.Validation.MinPixels)
	case !(c.Inference.MinSum >= 0) || math.IsInf(c.Inference.MinSum, 0):
		return fmt.Errorf("noise: a sum of probabilities of %v, wanted 0 or more", c.Inference.MinSum)
	case c.Inference.FilmSize < 1:
		return fmt.Errorf("film size %d, wanted at least 1 pixel", c.Inference.FilmSize)
	}
	if c.Task.NoMirror && (c.Inference.FlipAverage || c.Augmentation.PFlip != 0) {
		return fmt.Errorf("the task says that a mirror image has other classes, but inference.flip_average is %t and augmentation.p_flip is %v; set them to false and 0, as -no-mirror does", c.Inference.FlipAverage, c.Augmentation.PFlip)
	}
	for i := range min(len(c.Input.Mean), len(c.Input.Std)) {
		if m, s := c.Input.Mean[i], c.Input.Std[i]; !(m >= 0 && m <= 1 && s > 0 && s <= 1) {
			return fmt.Errorf("mean %v and standard deviation %v of the input, wanted those of values in [0, 1]; divide those of bytes by 255", m, s)
		}
	}
	kind, err := encoder.Find(c.Network.Encoder)
	if err != nil {
		return err
	}
	if n := int(slices.Max(kind.Strides)); c.Size%n != 0 {
		return fmt.Errorf("size %d is no multiple of %d; use %d", c.Size, n, (c.Size/n+1)*n)
	}
	if p, ok := checkpoint.FindPublished(c.Weights); ok && p.Architecture != kind.Name && checkpoint.Generations(p.Architecture) != nil {
		return fmt.Errorf("weights %s are of a %s, the encoder is a %s; choose one", c.Weights, p.Architecture, kind.Name)
	}
	if _, err := c.Folds.Split.MarshalText(); err != nil {
		return err
	}
	if _, err := c.Inference.Rule.MarshalText(); err != nil {
		return err
	}
	if _, err := c.Last.MarshalText(); err != nil {
		return err
	}
	for _, check := range []func() error{c.Network.Check, c.Augmentation.Check, c.Training.Check} {
		if err := check(); err != nil {
			return err
		}
	}
	for _, p := range c.Phases {
		if err := p.Check(kind.Groups + 1); err != nil { // the decoder is the last one
			return err
		}
	}
	return nil
}

// Differences names the fields in which two descriptions differ.
func (c Config) Differences(o Config) []string {
	flat := func(c Config) map[string]string {
		b, err := json.Marshal(c)
		var tree any
		if err == nil {
			err = json.Unmarshal(b, &tree)
		}
		leaves := map[string]string{}
		if err != nil {
			leaves["(not a description)"] = err.Error()
		}
		flatten(leaves, "", tree)
		return leaves
	}
	a, b := flat(c), flat(o)
	var names []string
	for name, v := range a {
		if b[name] != v {
			names = append(names, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func flatten(leaves map[string]string, path string, v any) {
	if m, ok := v.(map[string]any); ok {
		for name, v := range m {
			flatten(leaves, strings.TrimPrefix(path+"."+name, "."), v)
		}
		return
	}
	var b bytes.Buffer
	json.NewEncoder(&b).Encode(v)
	leaves[path] = b.String()
}

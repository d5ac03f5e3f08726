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

// Version is the version of the format of a Config.
const Version = 1

// A Config describes a run: the data, the network and the training. It alone decides
// the bytes of the result. A Config that is written to JSON and read back is equal.
// [Default] and [Kernel] return one.
type Config struct {
	Version int `json:"version"` // of the format

	Data string    `json:"data"` // folder with train/, masks/ and test/
	Task data.Task `json:"task"` // without classes, those of the folder

	// Preparation says how the images of the folder were made. If it is missing, it
	// is taken from the folder; otherwise it must equal that of the folder.
	Preparation *data.Preparation `json:"preparation"`

	Size  int         `json:"size"`  // width and height in pixels of the images that the network gets
	Input train.Input `json:"input"` // if missing, the statistics of the folder, or else of its images; grey images are copied to three channels

	Network unet.Config `json:"network"`

	// Weights are the weights to start from, of the encoder or of a whole network such
	// as fold0.safetensors: a file, or a name for checkpoint.Fetch. "" starts from
	// random weights.
	Weights string `json:"weights"`

	Augmentation augment.Config `json:"augmentation"`
	Batch        int            `json:"batch"`      // images per micro-batch
	Last         feed.Last      `json:"last_batch"` // what happens to the last batch of a training epoch
	Training     train.Config   `json:"training"`   // its seed must be 0: the seed of the run is used
	Phases       []train.Phase  `json:"phases"`

	Folds Folds  `json:"folds"`
	Seed  uint32 `json:"seed"` // of folds, weights, order, transforms and dropout

	Validation Validation `json:"validation"`
	Inference  Inference  `json:"inference"`
}

// Folds say how the images are divided into folds.
type Folds struct {
	Number int   `json:"number"`
	Split  Split `json:"split"`
}

// Validation says how the score after each epoch is measured.
type Validation struct {
	Threshold float64 `json:"threshold"`  // probability above which a pixel is predicted
	MinPixels float64 `json:"min_pixels"` // fewer predicted pixels count as none

	// With two classes, only the Dice is measured unless one of these is set; see
	// metric.Scores. Curves adds the scores that need no threshold. Distances adds
	// the distances between outlines in pixels, which take the most time.
	Curves    bool `json:"curves"`
	Distances bool `json:"distances"`
}

// Inference says how probabilities become masks.
type Inference struct {
	// FlipAverage takes the mean of the predictions for an image and its mirror image.
	// It is wrong if mirroring changes the classes, such as a left and a right lung.
	FlipAverage bool `json:"flip_average"`

	MinSum float64    `json:"min_sum"` // if the probabilities of a class in an image sum to less, its mask is empty: the notebook's noise rule; 0 means none
	Rule   RuleChoice `json:"rule"`    // which of the rules that are found makes the submission

	FilmSize     int  `json:"film_size"`     // width and height of test films whose size is not known
	NotebookRuns bool `json:"notebook_runs"` // write submission.csv with the notebook's run-length encoder, which loses some pixels; see rle.Options.Kernel
}

// A Recipe returns a description for images of that size, micro-batches of batch
// images, and microBatches micro-batches per step.
type Recipe func(size, batch, microBatches int) Config

// Recipes are the known recipes by name.
var Recipes = map[string]Recipe{"default": Default, "kernel": Kernel}

// Default returns the system of the notebook without its errors. The notebook's
// arguments are 256, 16 and 4.
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
	// 0.1 per step, so that the statistics also converge in a short training on small
	// batches.
	c.Training.BatchNorm = 0.1 / float64(max(microBatches, 1))
	return c
}

// Kernel returns the system exactly as in the notebook, with its errors.
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

// spread returns the input for grey images of a network with three channels.
func spread(mean, std float64) train.Input {
	return train.Input{Mean: []float64{mean, mean, mean}, Std: []float64{std, std, std}}
}

// NotebookPhases returns the phases of the notebook: first with the encoder frozen,
// at the given highest rate; then all layers, with rates from rate/80 in the first
// layers to rate/2. Without pretrained weights nothing is frozen. A phase without
// epochs is left out.
func NotebookPhases(frozen, full int, rate float64, pretrained bool) []train.Phase {
	const groups = 3 // of the networks on a ResNet
	even, err := train.EvenRates(rate/80, rate/2, groups)
	if err != nil { // Check returns this error
		even = train.SameRates(rate, groups)
	}
	first := train.Phase{Name: "first", Epochs: frozen, Rates: train.SameRates(rate, groups), Schedule: train.OneCycle{}}
	if pretrained {
		first.Name, first.Frozen = "frozen", true
	}
	phases := []train.Phase{first, {Name: "full", Epochs: full, Rates: even, Schedule: train.OneCycle{}}}
	return slices.DeleteFunc(phases, func(p train.Phase) bool { return p.Epochs == 0 })
}

// ReadConfig reads a description. Missing fields are as in [Default] with the
// notebook's arguments; an unknown field is an error.
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

// JSON returns the description as the content of a file.
func (c Config) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	return append(b, '\n'), err
}

// Check returns an error for the first field that is not valid, as far as the
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
		return fmt.Errorf("the task says that mirroring changes the classes, but inference.flip_average is %t and augmentation.p_flip is %v; set them to false and 0, as -no-mirror does", c.Inference.FlipAverage, c.Augmentation.PFlip)
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
		return fmt.Errorf("size %d is not a multiple of %d; use %d", c.Size, n, (c.Size/n+1)*n)
	}
	if p, ok := checkpoint.FindPublished(c.Weights); ok && p.Architecture != kind.Name && checkpoint.Generations(p.Architecture) != nil {
		return fmt.Errorf("weights %s are of a %s, but the encoder is a %s; change one of them", c.Weights, p.Architecture, kind.Name)
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
		if err := p.Check(kind.Groups + 1); err != nil { // the decoder is the last group
			return err
		}
	}
	return nil
}

// Differences returns the names of the fields in which two descriptions differ.
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

package ensemble

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/encoder"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
)

// Flags turn a command line into a description. They begin with a recipe or with a
// description in a file; other flags override its fields.
type Flags struct {
	set     *flag.FlagSet
	config  string // file
	recipe  string
	device  string
	threads int
	data    int64  // MiB; negative if it was not given
	c       Config // values of the flags
	frozen  int    // epochs
	full    int
	rate    float64
	noise   float64
	noFlip  bool
	classes string
}

// NewFlags defines the flags of a description on a flag set.
func NewFlags(set *flag.FlagSet) *Flags {
	f := &Flags{set: set, c: Default(256, 16, 4), frozen: 8, full: 10, rate: 1e-3, noise: -1, data: -1}
	c := &f.c
	set.StringVar(&f.config, "config", "", "`file` with a description, such as the config.json of another run; other flags override it")
	set.StringVar(&f.recipe, "recipe", "default", "settings to begin with: `default`, or kernel for exactly what the notebook does, with its errors")
	set.StringVar(&c.Data, "data", "", "`folder` with train/, masks/ and test/ (see examples/prepare)")
	set.TextVar(&c.Task.Masks, "mask-rule", c.Task.Masks, "how the values of masks become classes: `exact`, or white_only as in the notebook")
	set.StringVar(&f.classes, "classes", "", "`names` of the classes, separated by commas, the background first; the default is the folder's classes.txt, or background,mask")
	set.IntVar(&c.Task.Channels, "channels", 1, "`channels` of the images: 1 for grey, 3 for colours")
	set.TextVar(&c.Task.Output, "output", c.Task.Output, "`softmax` for exactly one class per pixel, or sigmoid for independent classes")
	set.StringVar(&c.Network.Encoder, "arch", c.Network.Encoder, "`encoder`: "+strings.Join(encoder.Names(), " or "))
	set.StringVar(&c.Weights, "weights", "", "weights to start from, of the encoder or of a whole network: a `file`, or resnet34 to download torchvision's; without it, all weights start at random and nothing is frozen")
	set.IntVar(&c.Size, "size", c.Size, "width and height in `pixels` of the images that the network gets, a multiple of 32")
	set.IntVar(&c.Batch, "batch", c.Batch, "`images` per micro-batch")
	set.IntVar(&c.Training.MicroBatches, "accumulate", c.Training.MicroBatches, "`micro-batches` per step of the optimizer")
	set.TextVar(&c.Training.Precision, "precision", c.Training.Precision, "precision of the forward pass: `float32`, bfloat16, or float16 on CUDA")
	set.Float64Var(&c.Training.WeightDecay, "weight-decay", c.Training.WeightDecay, "weight `decay`; 0 means none")
	set.Float64Var(&c.Training.Clip, "clip", c.Training.Clip, "largest `norm` of a gradient; 0 means no clipping")
	set.IntVar(&f.frozen, "epochs-frozen", f.frozen, "`epochs` with the encoder frozen")
	set.IntVar(&f.full, "epochs-full", f.full, "`epochs` of the whole network")
	set.Float64Var(&f.rate, "rate", f.rate, "highest learning `rate` of the frozen epochs; in the other epochs the highest rates are rate/80 in the first layers of the encoder to rate/2 in the decoder")
	set.IntVar(&c.Folds.Number, "folds", c.Folds.Number, "`number` of folds")
	set.TextVar(&c.Folds.Split, "split", c.Folds.Split, "how images are divided into folds: `random`, area (similar mask areas in all folds) or patient")
	set.Func("seed", "`seed` of folds, weights, order and transforms (default 2019)", func(s string) error {
		v, err := strconv.ParseUint(s, 10, 32)
		c.Seed = uint32(v)
		return err
	})
	set.Func("mean", "`mean` of the input in [0, 1], used with -std; the default is that of the data's statistics.json, or of the images", number(&c.Input.Mean))
	set.Func("std", "`standard deviation` of the input", number(&c.Input.Std))
	set.Float64Var(&c.Validation.Threshold, "threshold", c.Validation.Threshold, "`probability` above which the Dice after each epoch counts a pixel")
	set.Float64Var(&f.noise, "noise", f.noise, "`pixels`, or sum of probabilities, below which a prediction counts as empty; 0 means none; the default is the notebook's, 75 at 128x128 and in proportion to the area")
	set.TextVar(&c.Inference.Rule, "rule", c.Inference.Rule, "how probabilities become the masks of the submission: `per_fold` (the mean of the folds' best thresholds), pooled, or triplet")
	set.BoolVar(&f.noFlip, "no-flip", false, "do not average predictions over mirror images")
	set.BoolVar(&c.Task.NoMirror, "no-mirror", false, "mirroring changes the classes, such as a left and a right lung: mirror nothing in training and prediction")
	set.IntVar(&c.Inference.FilmSize, "film-size", c.Inference.FilmSize, "width and height in `pixels` of test films whose size is not known")
	set.StringVar(&f.device, "device", "auto", "`auto`, cpu, cuda or cuda:N")
	set.IntVar(&f.threads, "threads", 0, "`threads` inside an operation on the CPU; 0 means libtorch's default, or with -resume the number that the run began with. Another number may change the last bits of the result")
	set.Func("device-data", "`MiB` of the device's memory for the training images and masks; if they fit, they are copied there once and transformed there, which may change the last bits of the result. 0 transforms them on the CPU. The default is 0, or with -resume the number that the run began with", func(s string) (err error) {
		f.data, err = strconv.ParseInt(s, 10, 32)
		if err == nil && f.data < 0 {
			err = errors.New("wanted 0 or more")
		}
		return err
	})
	return f
}

// number appends a value for each of three channels of the network's input.
func number(to *[]float64) func(string) error {
	return func(s string) error {
		*to = nil
		for part := range strings.SplitSeq(s, ",") {
			v, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
			if err != nil {
				return err
			}
			*to = append(*to, v)
		}
		if len(*to) == 1 {
			*to = []float64{(*to)[0], (*to)[0], (*to)[0]}
		}
		return nil
	}
}

// Config returns the description that the parsed flags give. If base is not nil, it
// begins with base, such as the description of a run to continue.
func (f *Flags) Config(base *Config) (Config, error) {
	given := map[string]bool{}
	f.set.Visit(func(g *flag.Flag) { given[g.Name] = true })
	var c Config
	recipe, ok := Recipes[f.recipe]
	switch {
	case !ok:
		return Config{}, fmt.Errorf("recipe %q, wanted %s", f.recipe, strings.Join(slices.Sorted(maps.Keys(Recipes)), " or "))
	case given["recipe"] && (f.config != "" || base != nil):
		return Config{}, fmt.Errorf("-recipe %s was given together with a description, which already has all that a recipe sets; give only one of them", f.recipe)
	case base != nil:
		c = *base
	case f.config != "":
		var err error
		if c, err = OpenConfig(f.config); err != nil {
			return Config{}, err
		}
	default:
		c = recipe(f.c.Size, f.c.Batch, f.c.Training.MicroBatches)
		given["weights"] = true // whether anything is frozen depends on it
	}
	if err := f.phases(&c, given, base != nil || f.config != ""); err != nil {
		return Config{}, err
	}
	for name := range given {
		if set := setters[name]; set != nil {
			set(f, &c)
		}
	}
	return c, nil
}

// setters copy the value of a flag to a description.
var setters = map[string]func(*Flags, *Config){
	"data":         func(f *Flags, c *Config) { c.Data = f.c.Data },
	"mask-rule":    func(f *Flags, c *Config) { c.Task.Masks = f.c.Task.Masks },
	"classes":      func(f *Flags, c *Config) { c.Task.Classes = strings.Split(f.classes, ",") },
	"channels":     func(f *Flags, c *Config) { c.Task.Channels = f.c.Task.Channels },
	"output":       func(f *Flags, c *Config) { c.Task.Output = f.c.Task.Output },
	"arch":         func(f *Flags, c *Config) { c.Network.Encoder = f.c.Network.Encoder },
	"weights":      func(f *Flags, c *Config) { c.Weights = f.c.Weights },
	"size":         func(f *Flags, c *Config) { c.Size = f.c.Size },
	"batch":        func(f *Flags, c *Config) { c.Batch = f.c.Batch },
	"accumulate":   func(f *Flags, c *Config) { c.Training.MicroBatches = f.c.Training.MicroBatches },
	"precision":    func(f *Flags, c *Config) { c.Training.Precision = f.c.Training.Precision },
	"weight-decay": func(f *Flags, c *Config) { c.Training.WeightDecay = f.c.Training.WeightDecay },
	"clip":         func(f *Flags, c *Config) { c.Training.Clip = f.c.Training.Clip },
	"folds":        func(f *Flags, c *Config) { c.Folds.Number = f.c.Folds.Number },
	"split":        func(f *Flags, c *Config) { c.Folds.Split = f.c.Folds.Split },
	"seed":         func(f *Flags, c *Config) { c.Seed = f.c.Seed },
	"mean":         func(f *Flags, c *Config) { c.Input.Mean = f.c.Input.Mean },
	"std":          func(f *Flags, c *Config) { c.Input.Std = f.c.Input.Std },
	"threshold":    func(f *Flags, c *Config) { c.Validation.Threshold = f.c.Validation.Threshold },
	"rule":         func(f *Flags, c *Config) { c.Inference.Rule = f.c.Inference.Rule },
	"no-flip":      func(f *Flags, c *Config) { c.Inference.FlipAverage = !f.noFlip },
	"no-mirror": func(f *Flags, c *Config) {
		if c.Task.NoMirror = f.c.Task.NoMirror; c.Task.NoMirror {
			c.Inference.FlipAverage, c.Augmentation.PFlip = false, 0
		}
	},
	"film-size": func(f *Flags, c *Config) { c.Inference.FilmSize = f.c.Inference.FilmSize },
	"noise": func(f *Flags, c *Config) {
		c.Validation.MinPixels, c.Inference.MinSum = f.noise, f.noise
		if f.noise < 0 {
			c.Validation.MinPixels, c.Inference.MinSum = metric.NoiseArea(c.Size, c.Size), metric.NoiseArea(c.Size, c.Size)
		}
	},
}

// phases sets the phases of the notebook if a flag changes them. If the
// description comes from a file or a run (begun), values that no flag changes
// stay as they are.
func (f *Flags) phases(c *Config, given map[string]bool, begun bool) error {
	if !given["epochs-frozen"] && !given["epochs-full"] && !given["rate"] && !given["weights"] {
		return nil
	}
	if f.frozen < 0 || f.full < 0 {
		return fmt.Errorf("%d and %d epochs, wanted at least 0 each", f.frozen, f.full)
	}
	if !(f.rate > 0) {
		return fmt.Errorf("learning rate %v, wanted a positive number", f.rate)
	}
	pretrained := c.Weights != ""
	if given["weights"] {
		pretrained = f.c.Weights != ""
	}
	if !begun {
		c.Phases = NotebookPhases(f.frozen, f.full, f.rate, pretrained)
		return nil
	}
	phases := NotebookPhases(1, 1, f.rate, pretrained)
	flags, epochs := []string{"epochs-frozen", "epochs-full"}, []int{f.frozen, f.full}
	for i := range phases {
		phases[i].Epochs = 0
		if given[flags[i]] {
			phases[i].Epochs = epochs[i]
		}
	}
	for _, p := range c.Phases {
		i := slices.Index([]string{"first", "frozen", "full"}, p.Name)
		if i < 0 {
			return fmt.Errorf("-epochs-frozen, -epochs-full, -rate and -weights change the phases of the notebook, but the description has a phase called %q; change the description", p.Name)
		}
		i /= 2
		if !given[flags[i]] {
			phases[i].Epochs = p.Epochs
		}
		if !given["rate"] {
			phases[i].Rates = p.Rates
		}
		phases[i].Schedule = p.Schedule
	}
	c.Phases = slices.DeleteFunc(phases, func(p train.Phase) bool { return p.Epochs == 0 })
	return nil
}

// Machine returns the device of the flags and sets the number of threads. For a run
// that is continued in the folder dir, which may be "", the default is the number
// with which the run began, because another number may change the last bits of the
// result. Processes that share a machine, as place says, get one CUDA device each and
// share the cores.
func (f *Flags) Machine(dir string, place dist.Config) (nn.Device, error) {
	threads := f.threads
	if threads == 0 {
		began, err := beginning(dir)
		if err != nil {
			return nn.Device{}, err
		}
		threads = began.Threads
	}
	device := f.device
	if threads == 0 {
		threads = max(1, nn.Threads()/max(1, place.LocalSize))
	}
	if place.LocalSize > 1 {
		if any, err := nn.ParseDevice(device); err == nil && any.CUDA() && !strings.Contains(device, ":") {
			device = fmt.Sprintf("cuda:%d", place.LocalRank)
		}
	}
	d, err := nn.ParseDevice(device)
	if err == nil {
		err = nn.SetThreads(threads) // OpenBLAS has the same number then, whatever the environment says
	}
	return d, err
}

// DeviceData returns Options.DeviceData of the flags. For a run that is continued in the
// folder dir, which may be "", the default is that with which the run began.
func (f *Flags) DeviceData(dir string) (int64, error) {
	if f.data >= 0 {
		return f.data << 20, nil
	}
	began, err := beginning(dir)
	return began.DeviceData, err
}

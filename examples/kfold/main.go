// Command kfold does what the notebook "Hypercolumns pneumothorax fastai" does,
// end to end: from a folder of prepared images (see examples/prepare) to an
// ensemble of U-Nets, its out-of-fold scores, and submission.csv.
//
//	kfold -data data/siim-256 -weights resnet34 -device cuda
//
// On SIIM-ACR (10,675 films at 256x256) the notebook scores 0.816 out of fold;
// predicting nothing scores 0.777. Its flags have the notebook's values as
// defaults.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/ensemble"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
)

func main() {
	switch err := run(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "kfold:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	c := ensemble.Notebook()
	c.Command = os.Args
	flags := flag.NewFlagSet("kfold", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // a wrong flag is one line, not all of them
	flags.StringVar(&c.Data, "data", "", "`folder` with train/, masks/ and test/ (see examples/prepare)")
	flags.TextVar(&c.Masks, "masks", c.Masks, "how the values of masks become classes: `exact` (0 and 255, or 0 and 1), or white_only, where 255 counts and all else is background, as recipe kernel does without being told")
	flags.StringVar(&c.Out, "out", filepath.Join("runs", time.Now().Format("2006-01-02-150405")), "`folder` to make for everything the run leaves")
	flags.StringVar(&c.Arch, "arch", c.Arch, "`encoder`: resnet34 or resnet18")
	flags.StringVar(&c.Weights, "weights", "", "weights to start from, of the encoder or of a whole network: a `file`, or resnet34 to fetch torchvision's; without, everything starts at random and nothing is frozen")
	recipe := flags.String("recipe", "default", "`default`, or kernel for exactly what the notebook did, accidents included")
	device := flags.String("device", "auto", "`auto`, cpu, cuda or cuda:N")
	flags.TextVar(&c.Precision, "precision", c.Precision, "number `type` of convolutions: float32, bfloat16, or on CUDA float16")
	flags.IntVar(&c.Size, "size", c.Size, "width and height in `pixels` of what the network sees, a multiple of 32")
	flags.IntVar(&c.Batch, "batch", c.Batch, "`images` a micro-batch")
	flags.IntVar(&c.Accumulate, "accumulate", c.Accumulate, "`micro-batches` a step of the optimizer")
	flags.IntVar(&c.Folds, "folds", c.Folds, "`number` of folds")
	flags.Func("split", "how images are divided into folds: `random`, area (alike in mask area) or patient", func(s string) error { c.Split = ensemble.Split(s); return nil })
	seed := flags.Uint("seed", uint(c.Seed), "`seed` of folds, weights, order and transforms")
	flags.IntVar(&c.FrozenEpochs, "epochs-frozen", c.FrozenEpochs, "`epochs` with the encoder frozen")
	flags.IntVar(&c.FullEpochs, "epochs-full", c.FullEpochs, "`epochs` of the whole network")
	flags.Float64Var(&c.Rate, "rate", c.Rate, "highest learning `rate` of the frozen epochs; of the others it goes from rate/80 in the encoder's first layers to rate/2")
	flags.Float64Var(&c.Clip, "clip", c.Clip, "largest `norm` of a gradient, 0 for none")
	flags.Float64Var(&c.Mean, "mean", 0, "`mean` of the input; with -std, default those prepare left beside the data, or those of the images, or with recipe kernel the notebook's for 128 and 256 pixels")
	flags.Float64Var(&c.Std, "std", 0, "`standard deviation` of the input")
	flags.Float64Var(&c.Threshold, "threshold", c.Threshold, "`probability` above which the Dice after each epoch counts a pixel")
	flags.Float64Var(&c.Noise, "noise", c.Noise, "`pixels` below which a prediction counts as empty; negative means the notebook's 75 at 128x128, in proportion to the area")
	flags.IntVar(&c.FilmSize, "film-size", c.FilmSize, "width and height in `pixels` of the films that submission.csv is about")
	threads := flags.Int("threads", nn.Threads(), "`threads` inside an operation on the CPU")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(os.Stdout)
		flags.PrintDefaults()
		return err
	} else if err != nil {
		return fmt.Errorf("%w; see -h", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q; see -h", flags.Arg(0))
	}
	c.Seed = uint32(*seed)
	var err error
	if c.Recipe, err = ensemble.ParseRecipe(*recipe); err != nil {
		return err
	}
	if c.Recipe == ensemble.Kernel {
		c.Masks = data.WhiteOnly
	}
	if c.Device, err = nn.ParseDevice(*device); err != nil {
		return err
	}
	if err := nn.SetThreads(*threads); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c.Progress = report.NewProgress(os.Stderr)
	result, err := ensemble.Run(ctx, c)
	if err != nil {
		return err
	}
	fmt.Printf("%s\nweights, predictions, plots and how it was made: %s\n", result, result.Out)
	return nil
}

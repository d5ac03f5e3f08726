// Command kfold trains an ensemble on a folder of prepared images (see
// examples/prepare): a U-Net for each fold. It scores the held-out images and
// writes submission.csv.
//
//	kfold -data data/siim-256 -weights resnet34 -device cuda -out runs/siim
//	kfold -resume -out runs/siim                 continues a stopped run
//	kfold -config runs/siim/config.json          makes the same run again
//	kfold -data data/siim-256 -out runs/siim -fold 2    trains one fold; after all folds:
//	kfold -gather -out runs/siim
//	kfold -data data/siim-256 -out runs/siim -devices cuda:0,cuda:1    a fold on each at a time
//	kfold -data data/siim-256 -out runs/siim -nproc 4   four processes train each fold together
//	torchrun --no-python --nproc-per-node 4 kfold -data data/siim-256 -out runs/siim
//
// On SIIM-ACR (10,675 films at 256x256) the notebook "Hypercolumns pneumothorax
// fastai" scores 0.816 out of fold; predicting nothing scores 0.777. The flags have
// the notebook's values as defaults.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/ensemble"
	"github.com/hcunet/hcunet/internal/passive"
	"github.com/hcunet/hcunet/internal/usage"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
)

func main() {
	passive.Restart()
	switch err := run(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errStopped):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "kfold:", err)
		os.Exit(1)
	}
}

var help = usage.Text{
	Line:  "kfold -data FOLDER [-out FOLDER] [flags]",
	About: "Trains a network for each fold of a folder of images, scores each on its held-out images, and predicts the test images with all of them.",
	Examples: []string{
		"kfold -data data/siim-256 -weights resnet34 -device cuda -out runs/siim",
		"kfold -resume -out runs/siim                        continues a stopped run",
		"kfold -config runs/siim/config.json                 makes the same run again",
		"kfold -data data/siim-256 -out runs/siim -fold 2    trains only one fold; after all folds",
		"kfold -gather -out runs/siim                        makes the ensemble",
		"kfold -data data/siim-256 -find-rate -out runs/rate looks for a learning rate",
		"kfold -data data/siim-256 -out runs/siim -devices cuda:0,cuda:1    trains two folds at a time",
		"kfold -data data/siim-256 -out runs/siim -nproc 4   trains each network on 4 devices",
	},
	Groups: []usage.Group{
		{Heading: "start", Flags: []string{"recipe", "config", "weights", "allow-leak"}},
		{Heading: "images and classes", Flags: []string{"data", "classes", "channels", "output", "mask-rule", "no-mirror", "mean", "std"}},
		{Heading: "network and training", Flags: []string{"arch", "size", "batch", "accumulate", "epochs-frozen", "epochs-full", "rate", "weight-decay", "clip", "precision", "seed", "threshold"}},
		{Heading: "folds and masks", Flags: []string{"folds", "split", "rule", "noise", "no-flip", "film-size"}},
		{Heading: "the run", Flags: []string{"out", "resume", "fold", "gather", "find-rate", "save-every"}},
		{Heading: "the machine", Flags: []string{"device", "threads", "devices", "nproc", "workers", "memory", "device-data"}},
	},
}

func run(args []string) error {
	opt := ensemble.Options{Command: os.Args}
	flags := flag.NewFlagSet("kfold", flag.ContinueOnError)
	description := ensemble.NewFlags(flags)
	flags.StringVar(&opt.Out, "out", filepath.Join("runs", time.Now().Format("2006-01-02-150405")), "`folder` to make for all files of the run")
	flags.BoolVar(&opt.Resume, "resume", false, "continue the run in the folder -out")
	flags.IntVar(&opt.Fold, "fold", -1, "train only this fold, a `number` from 0")
	flags.BoolVar(&opt.Gather, "gather", false, "make the ensemble from the folder -out, where all folds are trained")
	flags.BoolVar(&opt.AllowLeak, "allow-leak", false, "start from -weights that were trained on held-out images; the scores are then too high")
	flags.Int64Var(&opt.Memory, "memory", 0, "`MiB` of images kept in memory, the others are read again each time; 0 keeps all")
	flags.IntVar(&opt.Workers, "workers", 0, "`goroutines` that read and transform images; 0 means one per core")
	flags.DurationVar(&opt.SaveEvery, "save-every", 0, "`time` between two saved states; 0 chooses it so that saving takes under 2 % of the time")
	processes := flags.Int("nproc", 1, "`processes` to start on this machine, which train each network together; torchrun, srun and Kubernetes start their own")
	devices := flags.String("devices", "", "`devices` of this machine, such as cuda:0,cuda:1, each of which trains one fold at a time, every fold in a separate process")
	find := flags.Bool("find-rate", false, "train with a growing learning rate and say where the loss falls fastest")
	if err := usage.Parse(flags, args, os.Stdout, help); err != nil {
		return err
	}
	place, launched, err := dist.FromEnviron(os.Getenv)
	if err != nil {
		return err
	}
	if *processes > 1 && !launched {
		return launch(*processes)
	}
	var apart []nn.Device
	if *devices != "" {
		if launched || *processes > 1 || opt.Fold >= 0 || opt.Gather || *find {
			return errors.New("-devices trains every fold, by itself; leave out -nproc, torchrun and the like, -fold, -gather and -find-rate")
		}
		for _, name := range strings.Split(*devices, ",") {
			d, err := nn.ParseDevice(name)
			if err != nil {
				return err
			}
			apart = append(apart, d)
		}
		place.LocalSize = len(apart) // the processes share the cores
	}
	opt.Memory <<= 20
	var base *ensemble.Config
	begun := "" // folder of a run to continue
	if opt.Resume || opt.Gather {
		begun = opt.Out
		c, err := ensemble.OpenConfig(filepath.Join(opt.Out, "config.json"))
		if err != nil {
			return fmt.Errorf("-out %s is not the folder of a run: %w", opt.Out, err)
		}
		base = &c
	}
	c, err := description.Config(base)
	if err != nil {
		return err
	}
	if opt.Device, err = description.Machine(begun, place); err != nil {
		return err
	}
	if opt.DeviceData, err = description.DeviceData(begun); err != nil {
		return err
	}
	if launched {
		place.CUDA = opt.Device.CUDA()
		if opt.Group, err = dist.Open(place); err != nil {
			return err
		}
		defer opt.Group.Close()
	}
	if apart != nil {
		if err := trainApart(c, opt, apart); err != nil {
			return err
		}
		opt.Gather, opt.Device = true, apart[0]
	}
	if place.Rank == 0 {
		opt.Progress = report.NewProgress(os.Stderr)
	}
	ctx, stop := usage.Interruptible(func() {
		opt.Progress.Printf("stopping after this step; press Ctrl-C again to stop now")
	})
	defer stop()
	if *find {
		rates, err := ensemble.FindRate(ctx, c, opt)
		if err != nil {
			return err
		}
		fmt.Println(rates)
		return nil
	}
	result, err := ensemble.Run(ctx, c, opt)
	if opt.Group != nil {
		opt.Group.Fail(err)
	}
	if err != nil || place.Rank > 0 {
		return err
	}
	fmt.Printf("%s\nweights, predictions, plots and the settings of the run are in %s\n", result, result.Out)
	return nil
}

// trainApart trains each fold in a process of this program, one at a time on each
// device.
func trainApart(c ensemble.Config, opt ensemble.Options, devices []nn.Device) error {
	ctx, stop := usage.Interruptible(nil)
	defer stop()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	return ensemble.TrainApart(ctx, c, opt, devices, func(fold int, device nn.Device) []string {
		argv := append([]string{program}, os.Args[1:]...) // if a flag is given twice, the last one counts
		return append(argv, "-devices", "", "-out", opt.Out, "-device", device.String(),
			"-threads", strconv.Itoa(nn.Threads()), "-fold", strconv.Itoa(fold))
	})
}

// launch starts this program again as several processes.
func launch(n int) error {
	ctx, stop := usage.Interruptible(nil)
	defer stop()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	err = dist.Launch(ctx, n, append([]string{program}, os.Args[1:]...), nil)
	if ctx.Err() != nil {
		return errStopped
	}
	return err
}

// errStopped is returned after a Ctrl-C, about which the first process has
// already printed a message.
var errStopped = errors.New("stopped")

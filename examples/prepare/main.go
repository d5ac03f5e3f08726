// Command prepare makes the folder that the training reads out of chest films and
// their masks: train/, masks/ and test/, PNG files of one size, as the notebook's
// data-repack step does, with the statistics that training needs beside them.
//
//	prepare -images siim/dicom-images-train -rle siim/train-rle.csv -test siim/dicom-images-test -out data/siim-256
//	prepare -images lungs/images -masks lungs/masks -fit pad -out data/lungs-256
//	prepare -check -out data/siim-256
//
// Of the whole SIIM-ACR training set the notebook has mean 0.540 and standard
// deviation 0.264.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hcunet/hcunet/data"
	_ "github.com/hcunet/hcunet/data/dicom/codec" // JPEG-LS and JPEG 2000, with -tags dicomcodec
	"github.com/hcunet/hcunet/report"
)

func main() {
	switch err := run(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "prepare:", strings.TrimPrefix(err.Error(), "data: "))
		os.Exit(1)
	}
}

func run(args []string) error {
	var opt data.PrepareOptions
	flags := flag.NewFlagSet("prepare", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // a wrong flag is one line, not all of them
	list := func(to *[]string) func(string) error {
		return func(s string) error { *to = append(*to, s); return nil }
	}
	flags.Func("images", "training films: a `folder`, searched to any depth for DICOM, PNG and JPEG, or a file; may be given more than once", list(&opt.Images))
	flags.Func("test", "test films: a `folder` or file, as -images; they have no masks", list(&opt.Test))
	flags.StringVar(&opt.RLE, "rle", "", "`CSV` with the runs of the masks, in the official format")
	flags.IntVar(&opt.RLESize, "rle-size", 0, "width and height in `pixels` on which the runs were counted; 0 means each film's own")
	flags.StringVar(&opt.Masks, "masks", "", "`folder` with mask pictures, named like the images; instead of -rle")
	flags.StringVar(&opt.Patients, "patients", "", "`CSV` with the columns image and patient, for pictures that do not say whose they are")
	flags.StringVar(&opt.Out, "out", "", "`folder` to make, or to look at with -check")
	flags.IntVar(&opt.Size, "size", 256, "width and height in `pixels` of what is made; a multiple of 32 for training")
	flags.Func("fit", "films that are not square: `stretch` (default), or pad with black", choice(&opt.Fit, map[string]data.Fit{"stretch": data.Stretch, "pad": data.Pad}))
	flags.Func("mask-scaling", "`linear` (default), as the notebook, or nearest", choice(&opt.MaskScaling, map[string]data.MaskScaling{"linear": data.Linear, "nearest": data.Nearest}))
	flags.BoolVar(&opt.NoCLAHE, "no-clahe", false, "leave the contrast as it is")
	flags.BoolVar(&opt.VOI, "voi", false, "apply the window of DICOM files that have one")
	flags.BoolVar(&opt.Stretch16, "stretch16", false, "spread the values of 16-bit PNG files from black to white")
	flags.Func("unlabelled", "films without a mask: `refuse` (default), skip, or empty to take their masks as empty", choice(&opt.Unlabelled, map[string]data.Unlabelled{"refuse": data.Refuse, "skip": data.Skip, "empty": data.Empty}))
	flags.BoolVar(&opt.KeepGoing, "keep-going", false, "pass over films that cannot be read, and name them at the end")
	flags.IntVar(&opt.Workers, "workers", 0, "films at a time; 0 means one per core")
	check := flags.Bool("check", false, "say what is in the folder -out and what is remarkable; prepare nothing")
	folds := flags.Int("folds", 4, "with -check: number of folds in which a patient is looked for twice")
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
	if *check {
		return lookAt(opt.Out, *folds)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	bar := report.NewProgress(os.Stderr)
	begun := false
	opt.Progress = func(done, total int) {
		if !begun {
			bar.Start("films", total)
			begun = true
		}
		bar.Set(int64(done))
	}
	sum, err := data.Prepare(ctx, opt)
	bar.End()
	if err != nil {
		return err
	}
	_, err = sum.WriteTo(os.Stdout)
	return err
}

// choice returns a flag's setter that takes one of some words.
func choice[T any](to *T, words map[string]T) func(string) error {
	return func(s string) error {
		v, ok := words[s]
		if !ok {
			return errors.New("no such choice")
		}
		*to = v
		return nil
	}
}

func lookAt(dir string, folds int) error {
	if dir == "" {
		return errors.New("-check needs the folder -out")
	}
	d, err := data.Open(dir, &data.Options{Multiple: 1})
	if err != nil {
		return err
	}
	r, err := data.Check(d, &data.CheckOptions{Folds: folds})
	if err != nil {
		return err
	}
	_, err = r.WriteTo(os.Stdout)
	return err
}

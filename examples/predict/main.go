// Command predict predicts films with a trained model. It reads DICOM, PNG and JPEG files
// and writes masks, overlays with outlines, JSON, a CSV file and a submission.
//
//	predict -model runs/siim/model.safetensors -out found films/ more/*.dcm
//	predict -model runs/siim/model.safetensors -info
//
// For research use, not for diagnosis.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	_ "github.com/hcunet/hcunet/data/dicom/codec" // JPEG 2000, with -tags dicomcodec
	"github.com/hcunet/hcunet/internal/engine"
	"github.com/hcunet/hcunet/internal/passive"
	"github.com/hcunet/hcunet/internal/usage"
	"github.com/hcunet/hcunet/internal/words"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/films"
	"github.com/hcunet/hcunet/report"
)

func main() {
	passive.Restart()
	usage.Exit("predict", run(os.Args[1:]))
}

var help = usage.Text{
	Line:  "predict -model FILE -out FOLDER FILM...",
	About: "Finds on films (files, folders, patterns; DICOM, PNG, JPEG) what a model was trained to find. For research use, not for diagnosis.",
	Examples: []string{
		"predict -model runs/siim/model.safetensors -out found films/",
		"predict -model runs/siim/model.safetensors -out found -keep-going -seg 'study/*.dcm'",
		"predict -model runs/siim/model.safetensors -info",
	},
	Groups: []usage.Group{
		{Heading: "input and output", Flags: []string{"model", "out", "info", "keep-going", "seg", "capture"}},
		{Heading: "changes to the model's own settings", Flags: []string{"threshold", "no-flip", "folds", "tiles"}},
		{Heading: "the machine", Flags: append(engine.Names, "workers", "batch")},
	},
	Arguments: true,
}

func run(args []string) error {
	var opt predict.Options
	var out films.Options
	var chosen engine.Flags
	flags := flag.NewFlagSet("predict", flag.ContinueOnError)
	model := flags.String("model", "", "model `file` that kfold or export wrote")
	info := flags.Bool("info", false, "describe the model and predict nothing")
	flags.StringVar(&out.Out, "out", "", "`folder` to make")
	flags.BoolVar(&out.KeepGoing, "keep-going", false, "skip films that cannot be predicted, and name them at the end")
	flags.BoolVar(&out.Segmentation, "seg", false, "also write a DICOM Segmentation for each DICOM film")
	flags.BoolVar(&out.Capture, "capture", false, "also write a DICOM Secondary Capture for each DICOM film")
	var threshold *float64
	flags.Func("threshold", "`probability` above which a pixel is in the mask, without the model's other rules", func(s string) error {
		v, err := strconv.ParseFloat(s, 64)
		threshold = &v
		return err
	})
	flags.Func("folds", "`numbers` of the networks to use, such as 0,2; the default is all", func(s string) (err error) {
		opt.Folds, err = usage.Numbers(s)
		return err
	})
	chosen.Add(flags)
	flags.IntVar(&out.Workers, "workers", 0, "`films` read at a time; 0 means one more than there are cores")
	flags.IntVar(&opt.Batch, "batch", 0, "largest number of `films` computed at a time on CUDA; 0 means 8")
	if err := usage.Parse(flags, args, os.Stdout, help); err != nil {
		return err
	}
	if *model == "" {
		return errors.New("no model given; set -model, see -h")
	}
	a, err := engine.Read(*model)
	if err != nil {
		return err
	}
	if *info {
		fmt.Print(a.Card())
		return nil
	}
	paths, err := films.Find(flags.Args())
	if err != nil {
		return err
	}
	backend, err := chosen.Backend(*model)
	if err != nil {
		return err
	}
	chosen.Apply(&opt)
	if threshold != nil {
		opt.Point = &predict.OperatingPoint{}
		for range a.Point.Rules {
			opt.Point.Rules = append(opt.Point.Rules, metric.ThresholdRule(*threshold, 0))
		}
	}
	p, err := predict.New(a, backend, &opt)
	if err != nil {
		return err
	}
	defer p.Close()

	ctx, stop := usage.Interruptible(nil)
	defer stop()
	fmt.Println(strings.Join(p.Model().Notices(), "\n"))
	bar := report.NewProgress(os.Stderr)
	bar.Start("films", len(paths))
	out.Time = time.Now()
	out.Done = func(f *films.Film) {
		bar.Printf("%s", f)
		bar.Add(1)
	}
	sum, err := films.Run(ctx, p, paths, out)
	bar.End()
	if err != nil {
		return err
	}
	fmt.Printf("%s, %d positive; see %s\n", words.Count(sum.Films, "film", "films"), sum.Positive, out.Out)
	if n := len(sum.Failed); n > 0 {
		return fmt.Errorf("%s could not be predicted; see failed.csv in %s", words.Count(n, "film", "films"), out.Out)
	}
	return nil
}

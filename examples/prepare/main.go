// Command prepare turns chest films and their masks into the folder that the
// training reads: PNG files of one size in train/, masks/ and test/, and the
// statistics that the training needs. By default it prepares films as the
// notebook's data does.
//
//	prepare -images siim/dicom-images-train -rle siim/train-rle.csv -test siim/dicom-images-test -out data/siim-256
//	prepare -images lungs/images -masks lungs/masks -fit pad -out data/lungs-256
//	prepare -check -out data/siim-256
//
// For the whole SIIM-ACR training set, the notebook has mean 0.540 and standard
// deviation 0.264.
package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"

	"github.com/hcunet/hcunet/data"
	_ "github.com/hcunet/hcunet/data/dicom/codec" // JPEG 2000, with -tags dicomcodec
	"github.com/hcunet/hcunet/data/prepare"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/internal/usage"
	"github.com/hcunet/hcunet/report"
)

func main() { usage.Exit("prepare", run(os.Args[1:])) }

var help = usage.Text{
	Line:  "prepare -images FOLDER (-rle CSV | -masks FOLDER) [-test FOLDER] -out FOLDER, or prepare -check -out FOLDER",
	About: "Turns films (DICOM, PNG, JPEG) and their masks into the folder that the training reads.",
	Examples: []string{
		"prepare -images siim/dicom-images-train -rle siim/train-rle.csv -test siim/dicom-images-test -out data/siim-256",
		"prepare -images lungs/images -masks lungs/masks -fit pad -out data/lungs-256",
		"prepare -images scans -masks labels -classes classes.txt -no-clahe -channels 3 -out data/scans",
		"prepare -check -out data/siim-256",
	},
	Groups: []usage.Group{
		{Heading: "films and their masks", Flags: []string{"images", "test", "rle", "rle-size", "masks", "classes", "channels", "patients", "unlabelled", "keep-going"}},
		{Heading: "output", Flags: []string{"out", "size", "fit", "mask-scaling", "no-clahe", "voi", "stretch16", "bits", "workers"}},
		{Heading: "checking a folder", Flags: []string{"check", "folds", "white-only", "renew-statistics"}},
	},
}

func run(args []string) error {
	opt := prepare.Options{Preparation: data.DefaultPreparation()}
	p := &opt.Preparation
	var see looking
	flags := flag.NewFlagSet("prepare", flag.ContinueOnError)
	list := func(to *[]string) func(string) error {
		return func(s string) error { *to = append(*to, s); return nil }
	}
	flags.Func("images", "training films: a `folder`, searched to any depth for DICOM, PNG and JPEG, or a file; may be given more than once", list(&opt.Images))
	flags.Func("test", "test films, which have no masks: a `folder` or file, as for -images", list(&opt.Test))
	flags.StringVar(&opt.RLE, "rle", "", "`CSV` with the runs of the masks, in the official format; may be gzipped")
	flags.IntVar(&opt.RLESize, "rle-size", 0, "width and height in `pixels` on which the runs were counted; 0 means the size of each film")
	flags.StringVar(&opt.Masks, "masks", "", "`folder` with mask pictures that have the names of the images; instead of -rle")
	classes := flags.String("classes", "", "text `file` with the names of the classes, one per line, background first; without it there are a background and a mask")
	flags.IntVar(&opt.Task.Channels, "channels", 1, "`number`: 1 makes every picture grey, 3 keeps its colours")
	flags.StringVar(&opt.Patients, "patients", "", "`CSV` with the columns image and patient, for pictures that do not name the patient")
	flags.StringVar(&opt.Out, "out", "", "`folder` to make, or to check with -check")
	flags.IntVar(&p.Size, "size", p.Size, "width and height in `pixels` of the images; training needs a multiple of 32")
	flags.TextVar(&p.Fit, "fit", p.Fit, "how films that are not square are fitted: `stretch`, or pad with black")
	flags.TextVar(&p.MaskScaling, "mask-scaling", p.MaskScaling, "`linear`, as in the notebook, or nearest; with more than two classes always nearest")
	noCLAHE := flags.Bool("no-clahe", false, "leave the contrast as it is")
	flags.BoolVar(&p.VOI, "voi", false, "apply the window of DICOM files that have one")
	flags.BoolVar(&p.Stretch16, "stretch16", p.Stretch16, "stretch the values of 16-bit pictures from black to white; false drops the lower byte, as OpenCV does")
	flags.IntVar(&p.Bits, "bits", p.Bits, "`number` of bits per value of the images: 8, or with -no-clahe 16")
	flags.TextVar(&opt.Unlabelled, "unlabelled", opt.Unlabelled, "training films without a mask: `refuse`, skip, or empty to give them an empty mask")
	flags.BoolVar(&opt.KeepGoing, "keep-going", false, "skip films that cannot be read, and name them at the end")
	flags.IntVar(&opt.Workers, "workers", 0, "`films` at a time; 0 means one per core")
	check := flags.Bool("check", false, "say what is in the folder -out and what is suspicious; prepare nothing")
	flags.IntVar(&see.folds, "folds", 4, "with -check: `number` of folds, to find patients that are in two of them")
	flags.BoolVar(&see.whiteOnly, "white-only", false, "with -check: count only the value 255 as mask, as the notebook does with masks that have grey edges")
	flags.BoolVar(&see.renew, "renew-statistics", false, "with -check: write mean and standard deviation of the images into statistics.json if it is wrong or missing")
	if err := usage.Parse(flags, args, os.Stdout, help); err != nil {
		return err
	}
	if *check {
		return see.at(opt.Out, opt.Task)
	}
	if *classes != "" {
		var err error
		if opt.Task.Classes, err = data.ReadClasses(*classes); err != nil {
			return err
		}
		if len(opt.Task.Classes) > 2 {
			p.MaskScaling = resize.MaskNearest
		}
	}
	p.CLAHE = !*noCLAHE

	ctx, stop := usage.Interruptible(nil)
	defer stop()
	bar := report.NewProgress(os.Stderr)
	begun := false
	opt.Progress = func(done, total int) {
		if !begun {
			bar.Start("films", total)
			begun = true
		}
		bar.Set(int64(done))
	}
	sum, err := prepare.Run(ctx, opt)
	bar.End()
	if err != nil {
		return err
	}
	_, err = sum.WriteTo(os.Stdout)
	return err
}

// looking holds the flags of -check.
type looking struct {
	folds            int
	whiteOnly, renew bool
}

func (l looking) at(dir string, task data.Task) error {
	if dir == "" {
		return errors.New("-check needs the folder -out")
	}
	if l.whiteOnly {
		task.Masks = data.WhiteOnly
	}
	d, err := data.Open(dir, &data.Options{Multiple: 1, Task: task, NoStatistics: true})
	if err != nil {
		return err
	}
	defer d.Close()
	r, err := data.Check(d, &data.CheckOptions{Folds: l.folds})
	if err != nil {
		return err
	}
	if _, err := r.WriteTo(os.Stdout); err != nil || !l.renew {
		return err
	}
	return data.WriteStatistics(filepath.Join(dir, data.StatisticsFile), r.Statistics())
}

// Command phantom draws phantoms that look like chest films, with masks that look
// like pneumothoraces in a quarter of them. It writes DICOM files and run-length
// CSV files in the layout of the SIIM-ACR download. They are drawings to try the
// whole pipeline on a machine without data; the score of a model on them says
// nothing about patients.
//
//	phantom -n 120 -test 24 -out data/phantom
//	prepare -images data/phantom/dicom-images-train -rle data/phantom/train-rle.csv \
//	        -test data/phantom/dicom-images-test -size 128 -out data/phantom-128
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/hcunet/hcunet/data/phantom"
	"github.com/hcunet/hcunet/internal/usage"
	"github.com/hcunet/hcunet/report"
)

func main() { usage.Exit("phantom", run(os.Args[1:])) }

var help = usage.Text{
	Line:  "phantom [-n NUMBER] [-test NUMBER] [-seed NUMBER] -out FOLDER",
	About: "Draws phantoms that look like chest films, and their masks, in the layout of the SIIM-ACR download. They are not films of patients.",
	Examples: []string{
		"phantom -n 120 -test 24 -out data/phantom",
		"prepare -images data/phantom/dicom-images-train -rle data/phantom/train-rle.csv -test data/phantom/dicom-images-test -size 128 -out data/phantom-128",
	},
	Groups: []usage.Group{{Heading: "flags", Flags: []string{"out", "n", "test", "seed"}}},
}

func run(args []string) error {
	opt := phantom.DefaultOptions()
	flags := flag.NewFlagSet("phantom", flag.ContinueOnError)
	out := flags.String("out", "phantom", "`folder` to write to; it must be new or empty")
	flags.IntVar(&opt.Train, "n", opt.Train, "`number` of training films, at least 1")
	flags.IntVar(&opt.Test, "test", 24, "`number` of test films")
	flags.Uint64Var(&opt.Seed, "seed", 2019, "the same `number` draws the same films")
	if err := usage.Parse(flags, args, os.Stdout, help); err != nil {
		return err
	}
	ctx, stop := usage.Interruptible(nil)
	defer stop()
	bar := report.NewProgress(os.Stderr)
	begun := false
	opt.Progress = func(done, total int) {
		if !begun {
			bar.Start("phantoms", total)
			begun = true
		}
		bar.Set(int64(done))
	}
	sum, err := phantom.Write(ctx, *out, opt)
	bar.End()
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d training films, %d with a pneumothorax; %d test films\n", *out, sum.Train, sum.Positive, sum.Test)
	fmt.Println("These are drawings, not films of patients; README.txt says how they were made.")
	return nil
}

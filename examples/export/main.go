// Command export writes a trained model as one ONNX file for ONNX Runtime, OpenVINO and
// other programs. The file takes prepared images and returns probabilities. Its metadata
// contain the description of the model with the operating point.
//
//	export -model runs/siim/model.safetensors -out model.onnx
//
// For research use, not for diagnosis.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/hcunet/hcunet/internal/usage"
	"github.com/hcunet/hcunet/internal/words"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/onnxfile"
)

func main() { usage.Exit("export", run(os.Args[1:])) }

var help = usage.Text{
	Line:  "export -model FILE -out FILE",
	About: "Writes a trained model as one ONNX file: normalization, all networks, the mean over mirror images, softmax or sigmoid and the mean over the networks are in its graph, thresholds and the rest in its metadata. For research use, not for diagnosis.",
	Examples: []string{
		"export -model runs/siim/model.safetensors -out model.onnx",
		"export -model runs/siim/model.safetensors -out small.onnx -folds 0 -no-flip -bytes",
	},
}

func run(args []string) error {
	var opt onnxfile.Options
	var folds []int
	flags := flag.NewFlagSet("export", flag.ContinueOnError)
	model := flags.String("model", "", "model `file`, as kfold writes it")
	out := flags.String("out", "", "`file` to write")
	flags.BoolVar(&opt.Bytes, "bytes", false, "take images as bytes, 0 to 255, and not as numbers from 0 to 1")
	flags.BoolVar(&opt.Fixed, "fixed", false, "take images of the model's own size alone")
	flags.IntVar(&opt.Batch, "batch", 0, "`number` of images that the file takes at a time; 0 means any")
	noFlip := flags.Bool("no-flip", false, "do not average over the mirror image: twice as fast")
	flags.Func("folds", "`numbers` of the networks to write, such as 0,2; without, all", func(s string) (err error) {
		folds, err = usage.Numbers(s)
		return err
	})
	if err := usage.Parse(flags, args, os.Stdout, help); err != nil {
		return err
	}
	if *model == "" || *out == "" {
		return errors.New("which model, and to where? Give -model and -out; see -h")
	}
	a, err := predict.ReadArtifact(*model)
	if err != nil {
		return err
	}
	if folds != nil {
		if a, err = a.Choose(folds); err != nil {
			return err
		}
	}
	if *noFlip {
		a.Inference.Flip = false
	}
	if err := onnxfile.Write(*out, a, &opt); err != nil {
		return err
	}
	info, err := os.Stat(*out)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s, %d MiB; %s\n", *out, words.Count(a.Folds, "network", "networks"), info.Size()>>20, strings.Join(a.Notices(), "; "))
	return nil
}

// Package engine lets a command choose what computes a model: libtorch or ONNX Runtime.
// A program that is built with the tag nolibtorch has the latter alone: it links no
// libtorch and takes no C++ compiler to build.
package engine

import (
	"errors"
	"flag"
	"fmt"

	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/onnx"
	"github.com/hcunet/hcunet/predict/onnxfile"
)

// Names are the names of the flags that choose an engine, for the help.
var Names = []string{"engine", "provider", "device", "precision", "threads"}

// Flags choose an engine and how it predicts.
type Flags struct {
	noFlip, tiles             bool
	engine, device, precision string
	provider                  onnx.Provider
	threads                   int
}

// Add adds the flags to a set.
func (f *Flags) Add(set *flag.FlagSet) {
	set.StringVar(&f.engine, "engine", standard, "what computes: "+engines)
	set.TextVar(&f.provider, "provider", f.provider, "of ONNX Runtime: `cpu`, openvino or cuda")
	set.StringVar(&f.precision, "precision", "float32", "of the network's arithmetic: `float32`, bfloat16, or float16 by libtorch on CUDA")
	set.IntVar(&f.threads, "threads", 0, "`number` of threads; 0 leaves the library's choice")
	f.addDevice(set)
	set.BoolVar(&f.noFlip, "no-flip", false, "do not average over the mirror image: twice as fast")
	set.BoolVar(&f.tiles, "tiles", false, "predict in overlapping tiles at the film's own resolution: for models that were trained on such tiles")
}

// Apply sets what the flags -no-flip and -tiles change in opt.
func (f *Flags) Apply(opt *predict.Options) {
	if f.noFlip {
		opt.Flip = new(bool)
	}
	if f.tiles {
		opt.Tiles = &predict.Tiles{}
	}
}

// Read reads a model: an artifact, or what an exported ONNX file says of itself.
func Read(path string) (*predict.Artifact, error) {
	if !onnx.IsFile(path) {
		return predict.ReadArtifact(path)
	}
	m, _, err := onnxfile.ReadModel(path)
	if err != nil {
		return nil, err
	}
	return &predict.Artifact{Model: *m}, nil
}

// Backend returns the one that the flags choose for the model at path. An ONNX file is
// ONNX Runtime's.
func (f *Flags) Backend(path string) (predict.Backend, error) {
	switch {
	case f.engine == "onnx" || onnx.IsFile(path):
		return f.onnx(path)
	case f.engine == "libtorch":
		return f.libtorch()
	}
	return nil, fmt.Errorf("engine %q; wanted %s", f.engine, engines)
}

func (f *Flags) onnx(path string) (predict.Backend, error) {
	b := onnx.Backend{Provider: f.provider, Threads: f.threads}
	if onnx.IsFile(path) {
		b.File = path
	}
	switch f.precision {
	case "float32":
	case "bfloat16":
		b.BFloat16 = true
	default:
		return nil, fmt.Errorf("precision %q; wanted float32, or bfloat16 by the provider openvino", f.precision)
	}
	if f.device != "auto" && f.device != "cpu" {
		return nil, errors.New("-device is for libtorch; ONNX Runtime takes -provider cuda")
	}
	return b, nil
}

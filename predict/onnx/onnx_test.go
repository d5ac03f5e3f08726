package onnx_test

import (
	"fmt"
	"image"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/encoder"
	library "github.com/hcunet/hcunet/internal/onnxruntime"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/network"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/libtorch"
	"github.com/hcunet/hcunet/predict/onnx"
	"github.com/hcunet/hcunet/predict/onnxfile"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// few is an encoder of five convolutions.
type few struct{ nn.Sequential }

var kind = encoder.Kind{
	Name: "few", Widths: []int64{3, 4, 5, 6, 8}, Strides: []int64{2, 4, 8, 16, 32},
	Groups: 1, Group: func(string) int { return 0 },
}

func init() {
	kind.New = func(in *nn.Init, c int64) encoder.Encoder {
		var e few
		for _, w := range kind.Widths {
			e.Sequential = append(e.Sequential, nn.NewConv2d(in, c, w, 3, &nn.ConvOptions{Stride: 2, Padding: 1}))
			c = w
		}
		return e
	}
	encoder.Register(kind)
	onnxfile.RegisterEncoder("few", func(g *onnxfile.Graph, w *onnxfile.Weights, x onnxfile.Value) (maps []onnxfile.Value) {
		for i := range kind.Widths {
			x = g.ReLU(g.Conv(x, w.Part(fmt.Sprint(i)).Conv(network.NormNone), 2, 1))
			maps = append(maps, x)
		}
		return maps
	})
}

func (e few) Kind() encoder.Kind                   { return kind }
func (e few) InChannels() int64                    { return e.Sequential[0].(*nn.Conv2d).In }
func (e few) LoadWeights(f *checkpoint.File) error { return nn.LoadState(e, f) }
func (e few) Features(mode nn.Mode, x torch.Tensor) (maps []torch.Tensor) {
	for _, l := range e.Sequential {
		x = nn.ReLU(l.Forward(mode, x))
		maps = append(maps, x)
	}
	return maps
}

// A library that is missing, that is no library, or that is too old is an error that says
// how to get one.
func TestNoLibrary(t *testing.T) {
	a := artifact(t, network.Config{Encoder: "few"}, data.Binary("lung"), 1, 64)
	t.Setenv(library.Variable, t.TempDir())
	_, err := predict.New(a, onnx.Backend{}, nil)
	require.ErrorContains(t, err, "where there is no libonnxruntime.so*: pip install onnxruntime")
	none := filepath.Join(t.TempDir(), "libonnxruntime.so")
	require.NoError(t, os.WriteFile(none, []byte("no library"), 0o600))
	_, err = predict.New(a, onnx.Backend{Library: none}, nil)
	require.ErrorContains(t, err, none+" cannot be loaded (wanted version 1.24 or newer: pip install")
	_, err = predict.New(a, onnx.Backend{Library: none + ".1.20.1"}, nil)
	require.ErrorContains(t, err, "is too old; wanted version 1.24 or newer")
}

// needLibrary skips a test if ONNX Runtime is not installed. If the environment names a
// library, it fails the test instead.
func needLibrary(t *testing.T) {
	_, err := library.Find()
	if err != nil && os.Getenv(library.Variable) != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
}

// artifact returns a model with random weights, statistics, biases and gains, so that none
// of them is exactly 0 or 1 as in a new network.
func artifact(t *testing.T, cfg network.Config, task data.Task, folds, size int) *predict.Artifact {
	p := data.DefaultPreparation()
	p.Size, p.MaskScaling = size, resize.MaskNearest
	var nets []*unet.Net
	for fold := range folds {
		net, err := unet.Build(nn.NewInit(nn.CPU, uint64(fold)), 3, int64(task.Outputs()), cfg)
		require.NoError(t, err)
		nets = append(nets, net)
	}
	a, err := libtorch.NewArtifact(predict.Model{
		Task: task, Preparation: p,
		Inference: predict.Inference{
			Input: predict.Input{Mean: data.Values{0.485, 0.456, 0.406}, Std: data.Values{0.229, 0.224, 0.225}},
			Flip:  true,
		},
		Point: predict.OperatingPoint{Rules: slices.Repeat([]metric.Rule{metric.ThresholdRule(0.25, 0)}, len(task.Classes)-1)},
	}, nets...)
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range a.Weights {
		for i, tensor := range f.Tensors {
			if len(tensor.Shape) != 1 || strings.HasSuffix(tensor.Name, "_u") || strings.HasSuffix(tensor.Name, "_v") {
				continue
			}
			v, err := tensor.Float32s()
			require.NoError(t, err)
			for j := range v {
				v[j] += r.Float32() / 4
			}
			f.Tensors[i] = checkpoint.FromFloat32(tensor.Name, v, tensor.Shape...)
		}
	}
	return a
}

// images returns n random images with values of 8 bits, divided by 255.
func images(n, size int) []float32 {
	r := rand.New(rand.NewPCG(3, 4))
	v := make([]float32, n*size*size)
	for i := range v {
		v[i] = float32(r.IntN(128)+i%size*127/size) / 255
	}
	return v
}

func probabilities(t *testing.T, b predict.Backend, a *predict.Artifact, images []float32, n int) []float32 {
	e, err := b.Open(a)
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	p, err := e.Probabilities(images, n)
	require.NoError(t, err)
	return slices.Clone(p)
}

// Networks with each of the options give libtorch's probabilities.
func TestSameAsLibtorch(t *testing.T) {
	needLibrary(t)
	three := data.Task{Classes: []string{"background", "lung", "heart"}, Channels: 1, Output: data.Sigmoid}
	for name, c := range map[string]struct {
		cfg  network.Config
		task data.Task
		size int
	}{
		"default":           {network.Config{}, data.Binary("lung"), 64},
		"sigmoids":          {network.Config{NoLastCross: true}, three, 64},
		"attention, bottle": {network.Config{SelfAttention: true, Bottle: true, DetachSkips: true}, data.Binary("lung"), 32},
		"batch norm":        {network.Config{Norm: network.NormBatch, Blur: network.BlurInner, SelfAttention: true}, data.Binary("lung"), 32},
		"batch norm, zero":  {network.Config{Norm: network.NormBatchZero, Blur: network.BlurNone}, data.Binary("lung"), 32},
		"weight norm":       {network.Config{Norm: network.NormWeight, YRange: &[2]float64{-1, 2}}, data.Binary("lung"), 32},
		"spectral norm":     {network.Config{Norm: network.NormSpectral}, data.Binary("lung"), 32},
		"plain, odd maps":   {network.Config{NoHypercolumns: true, SelfAttention: true}, data.Binary("lung"), 36},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Encoder = "few"
			a := artifact(t, c.cfg, c.task, 2, c.size)
			x := images(3, c.size)
			want := probabilities(t, libtorch.Backend{}, a, x, 3)
			require.Greater(t, slices.Max(want)-slices.Min(want), float32(0.02))
			require.InDeltaSlice(t, want, probabilities(t, onnx.Backend{Threads: 2}, a, x, 3), 1e-5)
			require.InDeltaSlice(t, want, probabilities(t, onnx.Backend{Together: true}, a, x, 3), 1e-5)
		})
	}
}

func TestResNet(t *testing.T) {
	needLibrary(t)
	a := artifact(t, network.Config{Encoder: "resnet18"}, data.Binary("lung"), 1, 64)
	x := images(1, 64)
	require.InDeltaSlice(t, probabilities(t, libtorch.Backend{}, a, x, 1), probabilities(t, onnx.Backend{}, a, x, 1), 1e-5)
}

// A film gets exactly the same probabilities alone and at the same time as others, from
// the artifact and from an exported file that takes float32.
func TestPredictor(t *testing.T) {
	needLibrary(t)
	a := artifact(t, network.Config{Encoder: "few"}, data.Binary("lung"), 2, 64)
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	require.NoError(t, predict.WriteArtifact(path, a))
	film := func(i int) image.Image {
		img := image.NewGray(image.Rect(0, 0, 90+i, 70))
		for j := range img.Pix {
			img.Pix[j] = uint8(j * (3 + i))
		}
		return img
	}
	var want [4][]float32
	run := func(path string, opt *predict.Options, exact bool) {
		p, err := onnx.Open(path, onnx.Backend{}, opt)
		require.NoError(t, err)
		defer p.Close()
		same := func(i int) {
			r, err := p.Image(t.Context(), film(i))
			if !assert.NoError(t, err) {
				return
			}
			if exact {
				assert.True(t, slices.Equal(want[i], r.Prob))
			} else {
				assert.InDeltaSlice(t, want[i], r.Prob, 1e-6) // the file divides the bytes by 255 itself, with other rounding
			}
		}
		if want[0] == nil {
			for i := range want {
				r, err := p.Image(t.Context(), film(i))
				require.NoError(t, err)
				want[i] = r.Prob
			}
		}
		var all sync.WaitGroup
		for i := range 5 * len(want) {
			all.Go(func() { same(i % len(want)) })
		}
		all.Wait()
	}
	run(path, nil, true)
	for name, o := range map[string]*onnxfile.Options{"floats": {Fixed: true, Batch: 1}, "free": nil, "bytes": {Bytes: true}} {
		file := filepath.Join(dir, name+".onnx")
		require.NoError(t, onnxfile.Write(file, a, o))
		run(file, nil, o == nil || !o.Bytes)
	}

	file := filepath.Join(dir, "free.onnx")
	_, err := onnx.Open(file, onnx.Backend{}, &predict.Options{Folds: []int{1}})
	require.ErrorContains(t, err, "is the mean of all its 2 networks")
	_, err = onnx.Open(file, onnx.Backend{}, &predict.Options{Flip: new(bool)})
	require.ErrorContains(t, err, "was exported with the mean over mirror images: true, wanted false")
	_, err = predict.New(a, onnx.Backend{File: file}, &predict.Options{Folds: []int{1}})
	require.ErrorContains(t, err, "is another model's: 2 networks")
	_, err = onnx.Open(path, onnx.Backend{File: path}, nil)
	require.ErrorContains(t, err, "no ONNX file, or a damaged one")
}

func TestBackendErrors(t *testing.T) {
	needLibrary(t)
	a := artifact(t, network.Config{Encoder: "few"}, data.Binary("lung"), 1, 64)
	for want, b := range map[string]onnx.Backend{
		"-1 threads": {Threads: -1},
		"bfloat16 by provider cpu; only openvino computes in it": {BFloat16: true},
		"provider(7)":                    {Provider: 7},
		"onnx: this process has loaded ": {Library: "/another/libonnxruntime.so"},
	} {
		_, err := predict.New(a, b, nil)
		require.ErrorContains(t, err, want)
	}
	e, err := onnx.Backend{}.Open(a)
	require.NoError(t, err)
	_, err = e.Probabilities(make([]float32, 5), 1)
	require.ErrorContains(t, err, "5 values for 1 images; wanted 4096")
	require.NoError(t, e.Close())
	version, path, err := onnx.Version()
	require.NoError(t, err)
	t.Log(version, path)

	var p onnx.Provider
	require.NoError(t, p.UnmarshalText([]byte("openvino")))
	require.Equal(t, onnx.OpenVINO, p)
	require.ErrorContains(t, p.UnmarshalText([]byte("tpu")), `provider "tpu"; wanted cpu, openvino or cuda`)
}

package onnxfile

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/network"
)

// Weights are the tensors of one network, or of a part of it.
type Weights struct {
	all    map[string]checkpoint.Tensor
	used   map[string]bool
	prefix string
}

func newWeights(f *checkpoint.File) *Weights {
	w := &Weights{all: map[string]checkpoint.Tensor{}, used: map[string]bool{}}
	for _, t := range f.Tensors {
		w.all[t.Name] = t
	}
	return w
}

// Part returns the tensors whose names begin with name and a point, under the rest of
// their names.
func (w *Weights) Part(name string) *Weights {
	return &Weights{w.all, w.used, w.prefix + name + "."}
}

// Has says whether there is a tensor of that name.
func (w *Weights) Has(name string) bool {
	_, ok := w.all[w.prefix+name]
	return ok
}

// Tensor returns the numbers and the shape of a tensor. A side of -1 may be anything;
// without sides, so may all of them.
func (w *Weights) Tensor(name string, sides ...int) (v []float32, shape []int) {
	name = w.prefix + name
	t, ok := w.all[name]
	if !ok {
		failf("the weights lack %s, which the model's network has", name)
	}
	w.used[name] = true
	fits := len(sides) == 0 || len(sides) == len(t.Shape)
	for i := 0; fits && i < len(sides); i++ {
		fits = (sides[i] == -1 || sides[i] == t.Shape[i]) && t.Shape[i] > 0
	}
	if !fits {
		failf("%s has the shape %v; wanted %v, where -1 stands for any number", name, t.Shape, sides)
	}
	v, err := t.Float32s()
	if err != nil {
		failf("%s: %v", name, err)
	}
	return v, t.Shape
}

// finish refuses tensors that nobody has asked for.
func (w *Weights) finish() {
	for _, name := range slices.Sorted(maps.Keys(w.all)) {
		if !w.used[name] && !strings.HasSuffix(name, ".num_batches_tracked") {
			failf("the weights have %s, which the model's network has not", name)
		}
	}
}

// A Kernel is the weight (Out, In, Height, Width) and the bias (Out) of a convolution,
// nil for none.
type Kernel struct {
	Out, In, Height, Width int
	Weight, Bias           []float32

	from string // the name of its part
}

func (k *Kernel) name() string {
	if k.from == "" {
		return ""
	}
	return k.from + " "
}

// Conv returns the convolution of this part: with the norm of weights that it was
// trained with, worked out.
func (w *Weights) Conv(norm network.Norm) *Kernel {
	var v []float32
	var shape []int
	switch norm {
	case network.NormWeight:
		v, shape = w.weightNorm()
	case network.NormSpectral:
		v, shape = w.spectralNorm()
	default:
		v, shape = w.Tensor("weight", -1, -1, -1, -1)
	}
	if len(shape) != 4 {
		failf("%sweight has the shape %v; wanted four sides", w.prefix, shape)
	}
	k := &Kernel{Out: shape[0], In: shape[1], Height: shape[2], Width: shape[3], Weight: v, from: strings.TrimSuffix(w.prefix, ".")}
	if w.Has("bias") {
		k.Bias, _ = w.Tensor("bias", k.Out)
	}
	return k
}

// weightNorm is g * v/|v| for each output channel, as torch.nn.utils.weight_norm.
func (w *Weights) weightNorm() ([]float32, []int) {
	v, shape := w.Tensor("weight_v")
	if len(shape) == 0 || len(v) == 0 {
		failf("%sweight_v has the shape %v", w.prefix, shape)
	}
	g, _ := w.Tensor("weight_g")
	if len(g) != shape[0] {
		failf("%sweight_g has %d numbers; wanted %d", w.prefix, len(g), shape[0])
	}
	row := len(v) / shape[0]
	for o, gain := range g {
		some := v[o*row:][:row]
		norm := math.Sqrt(dot(some, some))
		for i, x := range some {
			some[i] = float32(float64(gain) * float64(x) / norm)
		}
	}
	return v, shape
}

// spectralNorm divides by the largest singular value, which the vectors u and v of
// training give, as torch.nn.utils.spectral_norm does in evaluation.
func (w *Weights) spectralNorm() ([]float32, []int) {
	m, shape := w.Tensor("weight_orig")
	if len(shape) == 0 || len(m) == 0 {
		failf("%sweight_orig has the shape %v", w.prefix, shape)
	}
	row := len(m) / shape[0]
	u, _ := w.Tensor("weight_u", shape[0])
	v, _ := w.Tensor("weight_v", row)
	sigma := 0.0
	for o, x := range u {
		sigma += float64(x) * dot(m[o*row:][:row], v)
	}
	for i, x := range m {
		m[i] = float32(float64(x) / sigma)
	}
	return m, shape
}

func dot(a, b []float32) (sum float64) {
	for i, x := range a {
		sum += float64(x) * float64(b[i])
	}
	return sum
}

// An Affine is Scale*x + Shift for each channel.
type Affine struct{ Scale, Shift []float32 }

const batchNormEps = 1e-5 // torch.nn.BatchNorm2d

// BatchNorm returns the batch norm of this part, for so many channels, by its running
// statistics.
func (w *Weights) BatchNorm(channels int) *Affine {
	gain, _ := w.Tensor("weight", channels)
	bias, _ := w.Tensor("bias", channels)
	mean, _ := w.Tensor("running_mean", channels)
	variance, _ := w.Tensor("running_var", channels)
	a := &Affine{make([]float32, channels), make([]float32, channels)}
	for c := range channels {
		scale := float64(gain[c]) / math.Sqrt(float64(variance[c])+batchNormEps)
		a.Scale[c] = float32(scale)
		a.Shift[c] = float32(float64(bias[c]) - scale*float64(mean[c]))
	}
	return a
}

// Folded returns the convolution that does k and then a.
func (k *Kernel) Folded(a *Affine) *Kernel {
	row := len(k.Weight) / k.Out
	to := *k
	to.Weight, to.Bias = make([]float32, len(k.Weight)), make([]float32, k.Out)
	for o := range k.Out {
		for i, x := range k.Weight[o*row:][:row] {
			to.Weight[o*row+i] = float32(float64(a.Scale[o]) * float64(x))
		}
		to.Bias[o] = a.Shift[o]
		if k.Bias != nil {
			to.Bias[o] += float32(float64(a.Scale[o]) * float64(k.Bias[o]))
		}
	}
	return &to
}

// padded returns the convolution with zeros for more channels. A map that has fewer than
// k takes, or 8 more, is not the one that was meant; Conv then says so.
func (k *Kernel) padded(out, in int) *Kernel {
	if in < k.In || in >= k.In+8 || out == k.Out && in == k.In {
		return k
	}
	to := *k
	to.Out, to.In = out, in
	area := k.Height * k.Width
	to.Weight = make([]float32, out*in*area)
	for o := range k.Out {
		copy(to.Weight[o*in*area:], k.Weight[o*k.In*area:][:k.In*area])
	}
	if k.Bias != nil {
		to.Bias = append(make([]float32, 0, out), k.Bias...)[:out]
	}
	return &to
}

// A failure is an error on its way up through the functions that write a graph.
type failure struct{ err error }

func failf(format string, args ...any) { panic(failure{fmt.Errorf("onnxfile: "+format, args...)}) }

// try runs f and returns its failure.
func try(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.err
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

var errNoWeights = errors.New("onnxfile: the artifact has no weights")

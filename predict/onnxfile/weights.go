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

// Weights are the tensors of a network or of a part of it. Tensors that are missing or have
// an unexpected shape make the methods panic; Write and Bytes return this as an error.
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

// Part returns the weights of the part called name: the tensors whose names begin with name
// and a dot, without this beginning.
func (w *Weights) Part(name string) *Weights {
	return &Weights{w.all, w.used, w.prefix + name + "."}
}

// Has reports whether there is a tensor of that name.
func (w *Weights) Has(name string) bool {
	_, ok := w.all[w.prefix+name]
	return ok
}

// Tensor returns the elements and the shape of a tensor, which must have the given sides. A
// side of -1 stands for any size. Without sides the tensor may have any shape.
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

// finish fails if there are tensors that were not used.
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

	from string // the name of the part that it was read from
}

func (k *Kernel) name() string {
	if k.from == "" {
		return ""
	}
	return k.from + " "
}

// Conv returns the convolution of this part. With NormWeight and NormSpectral it computes
// the kernel from the tensors of the norm.
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

// weightNorm returns g * v/|v| for each output channel, as torch.nn.utils.weight_norm.
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

// spectralNorm returns the kernel divided by its largest singular value, which is computed
// from the saved vectors u and v, as torch.nn.utils.spectral_norm does in evaluation.
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

// BatchNorm returns the batch norm of this part, which has the given number of channels, in
// evaluation: with its running statistics.
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

// Folded returns the convolution that equals k followed by a.
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

// padded returns the convolution with zeros for additional output and input channels. If in
// is smaller than k.In or larger by 8 or more, it returns k unchanged, and Conv then
// reports the mismatch.
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

// A failure is a panic value with an error. The functions that build a graph panic with it;
// try returns the error.
type failure struct{ err error }

func failf(format string, args ...any) { panic(failure{fmt.Errorf("onnxfile: "+format, args...)}) }

// try runs f and returns the error of its failure, if it panics with one.
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

package onnxfile

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/network"
	"github.com/hcunet/hcunet/predict"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

// few are the channels of an encoder of three convolutions.
var few = []int{3, 4, 8}

func init() {
	RegisterEncoder("few", func(g *Graph, w *Weights, x Value) (maps []Value) {
		for i := range few {
			x = g.ReLU(g.Conv(x, w.Part(fmt.Sprint(i)).Conv(0), 2, 1))
			maps = append(maps, x)
		}
		return maps
	})
}

// drawn is a network's state with random values.
type drawn struct {
	*rand.Rand
	checkpoint.File
}

func (d *drawn) tensor(name string, shape ...int) {
	n := 1
	for _, s := range shape {
		n *= s
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = d.Float32() - 0.3
		if strings.HasSuffix(name, "running_var") {
			v[i] += 0.5
		}
	}
	d.Tensors = append(d.Tensors, checkpoint.FromFloat32(name, v, shape...))
}

func (d *drawn) conv(name string, in, out, kernel int) {
	d.tensor(name+".weight", out, in, kernel, kernel)
	d.tensor(name+".bias", out)
}

func (d *drawn) norm(name string, c int) {
	for _, part := range []string{"weight", "bias", "running_mean", "running_var"} {
		d.tensor(name+"."+part, c)
	}
	d.Tensors = append(d.Tensors, checkpoint.FromInt64(name+".num_batches_tracked", []int64{7}))
}

// state returns random weights for the network of the zero network.Config with the encoder
// few, for images of one channel and two classes.
func state(seed uint64) *checkpoint.File {
	d := &drawn{Rand: rand.New(rand.NewPCG(seed, 0))}
	d.conv("layers.0.0", 1, 3, 3)
	d.conv("layers.0.1", 3, 4, 3)
	d.conv("layers.0.2", 4, 8, 3)
	d.norm("layers.1", 8)
	d.conv("layers.3.0.0", 8, 16, 3)
	d.conv("layers.3.1.0", 16, 8, 3)
	d.conv("layers.4.shuf.conv.0", 8, 16, 1) // upsampled to 4 channels, concatenated with 4 of the skip
	d.norm("layers.4.bn", 4)
	d.conv("layers.4.conv1.0", 8, 8, 3)
	d.conv("layers.4.conv2.0", 8, 8, 3)
	d.conv("layers.5.shuf.conv.0", 8, 16, 1) // upsampled to 4 channels, concatenated with 3 of the skip; the last block halves 7 to 3
	d.norm("layers.5.bn", 3)
	d.conv("layers.5.conv1.0", 7, 3, 3)
	d.conv("layers.5.conv2.0", 3, 3, 3)
	d.conv("layers.6.conv.0", 3, 12, 1)
	d.conv("layers.8.layers.0.0", 4, 4, 3) // 3 channels and the image's one
	d.conv("layers.8.layers.1.0", 4, 4, 3)
	for i, c := range []int{8, 8, 3} {
		d.conv(fmt.Sprintf("layers.9.factorization.%d.0", i), c, 4, 3)
		d.conv(fmt.Sprintf("layers.9.factorization.%d.1", i), 4, 4, 3)
	}
	d.conv("layers.10.0", 16, 2, 1)
	return &d.File
}

func artifact() *predict.Artifact {
	p := data.KernelPreparation()
	p.Size = 16
	return &predict.Artifact{
		Model: predict.Model{
			Name: "small", Task: data.Binary("lung"), Preparation: p,
			Network: json.RawMessage(`{"encoder":"few"}`), Folds: 2,
			Inference: predict.Inference{Input: predict.Input{Mean: data.Values{0.5}, Std: data.Values{0.25}}, Flip: true},
			Point:     predict.OperatingPoint{Rules: []metric.Rule{metric.ThresholdRule(0.25, 0)}},
			Scores:    []predict.Score{}, Training: predict.Training{Positives: []int{}}, Versions: map[string]string{},
			Digest: "abc",
		},
		Weights: []*checkpoint.File{state(1), state(2)},
	}
}

// fields calls f with each field of a message, and fails the test if m is not a message.
func fields(t *testing.T, m []byte, f func(number protowire.Number, content []byte, n uint64)) {
	for len(m) > 0 {
		number, kind, n := protowire.ConsumeTag(m)
		require.Positive(t, n)
		m = m[n:]
		size := protowire.ConsumeFieldValue(number, kind, m)
		require.Positive(t, size)
		switch kind {
		case protowire.BytesType:
			content, _ := protowire.ConsumeBytes(m)
			f(number, content, 0)
		default:
			v, _ := protowire.ConsumeVarint(m)
			f(number, nil, v)
		}
		m = m[size:]
	}
}

// A graph is the content of a file's graph.
type graph struct {
	ops       map[string]int      // number of nodes by operator
	constants map[string][]byte   // bytes by name; nil if they are in another file
	external  map[string][]string // file, offset and length by name
	names     map[string]bool
	output    string
}

// read reads a file. It fails the test if a node uses a value that is not known yet, or if
// the number of bytes of a constant does not fit its shape.
func read(t *testing.T, b []byte) *graph {
	var body []byte
	fields(t, b, func(number protowire.Number, content []byte, n uint64) {
		if number == modelGraph {
			body = content
		}
	})
	g := &graph{ops: map[string]int{}, constants: map[string][]byte{}, external: map[string][]string{}, names: map[string]bool{"": true}}
	named := func(m []byte) (name string) {
		fields(t, m, func(number protowire.Number, content []byte, _ uint64) {
			if number == valueName {
				name = string(content)
			}
		})
		return name
	}
	fields(t, body, func(number protowire.Number, m []byte, _ uint64) {
		switch number {
		case graphInput:
			g.names[named(m)] = true
		case graphOutput:
			g.output = named(m)
		case graphTensor:
			size, element, name := 1, 0, ""
			var raw []byte
			var external []string
			fields(t, m, func(number protowire.Number, content []byte, n uint64) {
				switch number {
				case tensorDims:
					size *= int(n)
				case tensorType:
					element = map[uint64]int{typeFloat: 4, typeInt64: 8}[n]
				case tensorName:
					name = string(content)
				case tensorRaw:
					raw = content
				case tensorExternal:
					fields(t, content, func(number protowire.Number, content []byte, _ uint64) {
						if number == entryValue {
							external = append(external, string(content))
						}
					})
				}
			})
			if external == nil {
				require.Len(t, raw, size*element, name)
			} else {
				require.Equal(t, fmt.Sprint(size*element), external[2])
				g.external[name] = external
			}
			g.constants[name] = raw
			require.False(t, g.names[name], name)
			g.names[name] = true
		}
	})
	fields(t, body, func(number protowire.Number, m []byte, _ uint64) {
		if number != graphNode {
			return
		}
		fields(t, m, func(number protowire.Number, content []byte, _ uint64) {
			switch number {
			case nodeInput:
				require.True(t, g.names[string(content)], "%s is not known yet", content)
			case nodeOutput:
				require.False(t, g.names[string(content)], "%s is there already", content)
				g.names[string(content)] = true
			case nodeOp:
				g.ops[string(content)]++
			}
		})
	})
	require.True(t, g.names[g.output])
	return g
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.onnx")
	a := artifact()
	require.NoError(t, Write(path, a, &Options{Bytes: true}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	g := read(t, b)
	require.Equal(t, Output, g.output)
	// Each of the two folds has three convolutions in the encoder, two in the middle, three
	// in each of two blocks, one in the last upsampling, two in the residual block, two for
	// each of three maps, and one for the scores.
	require.Equal(t, 2*(3+2+2*3+1+2+3*2+1), g.ops["Conv"])
	require.Equal(t, 2*3, g.ops["DepthToSpace"])
	require.Equal(t, 1+2, g.ops["Slice"], "one mirrors the images, one for each fold mirrors the probabilities back")
	require.Zero(t, g.ops["BatchNormalization"])

	m, takesBytes, err := ReadModel(path)
	require.NoError(t, err)
	require.Equal(t, a.Model, *m)
	require.True(t, takesBytes)

	again, err := Bytes(a, &Options{Bytes: true})
	require.NoError(t, err)
	require.Equal(t, b, again)
}

// Large constants that do not fit into one message are written to a second file, unchanged.
func TestExternal(t *testing.T) {
	a := artifact()
	whole, err := Bytes(a, nil)
	require.NoError(t, err)
	want := read(t, whole)

	defer func(n int64) { maxMessage = n }(maxMessage)
	maxMessage = int64(len(whole)) - 1
	_, err = Bytes(a, nil)
	require.ErrorContains(t, err, "do not fit into one message")
	path := filepath.Join(t.TempDir(), "model.onnx")
	require.NoError(t, Write(path, a, nil))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	numbers, err := os.ReadFile(path + ".data")
	require.NoError(t, err)
	got := read(t, b)
	total, small := 0, 0
	for name, content := range want.constants {
		e, outside := got.external[name]
		require.Equal(t, len(content) >= 1024, outside, name)
		if !outside {
			require.Equal(t, content, got.constants[name])
			small++
			continue
		}
		require.Equal(t, "model.onnx.data", e[0])
		var offset, length int
		fmt.Sscan(e[1], &offset)
		fmt.Sscan(e[2], &length)
		require.Equal(t, content, numbers[offset:][:length])
		total += length
	}
	require.Len(t, numbers, total)
	require.NotZero(t, total)
	require.NotZero(t, small)
	m, _, err := ReadModel(path)
	require.NoError(t, err)
	require.Equal(t, a.Model, *m)
}

func TestErrors(t *testing.T) {
	replace := func(a *predict.Artifact, name string, tensors ...checkpoint.Tensor) {
		f := &checkpoint.File{}
		for _, t := range a.Weights[1].Tensors {
			if t.Name != name {
				f.Tensors = append(f.Tensors, t)
			}
		}
		f.Tensors = append(f.Tensors, tensors...)
		a.Weights[1] = f
	}
	zeros := func(name string, shape ...int) checkpoint.Tensor {
		n := 1
		for _, s := range shape {
			n *= s
		}
		return checkpoint.FromFloat32(name, make([]float32, n), shape...)
	}
	for want, change := range map[string]func(a *predict.Artifact){
		`network: encoder: "vgg" cannot be written, only few, resnet18, resnet34`: func(a *predict.Artifact) { a.Network = []byte(`{"encoder":"vgg"}`) },
		`unknown field "colour"`:                 func(a *predict.Artifact) { a.Network = []byte(`{"encoder":"few","colour":1}`) },
		`norm "layer"`:                           func(a *predict.Artifact) { a.Network = []byte(`{"encoder":"few","norm":"layer"}`) },
		"no weights":                             func(a *predict.Artifact) { a.Weights = nil },
		"fold 1: the weights lack layers.1.bias": func(a *predict.Artifact) { replace(a, "layers.1.bias") },
		"fold 1: the weights have extra":         func(a *predict.Artifact) { replace(a, "", zeros("extra", 1)) },
		"fold 1: layers.1.bias has the shape [7]; wanted [8]": func(a *predict.Artifact) {
			replace(a, "layers.1.bias", zeros("layers.1.bias", 7))
		},
		"fold 1: a convolution layers.3.0.0 of 9 channels for a map of 8": func(a *predict.Artifact) {
			replace(a, "layers.3.0.0.weight", zeros("layers.3.0.0.weight", 16, 9, 3, 3))
		},
		"the network gives 3 scores; the task has 2 outputs": func(a *predict.Artifact) {
			replace(a, "layers.10.0.weight", zeros("layers.10.0.weight", 3, 16, 1, 1))
			replace(a, "layers.10.0.bias", zeros("layers.10.0.bias", 3))
		},
		"images as bytes, but the model's have 16 bits": func(a *predict.Artifact) { a.Preparation.Bits, a.Preparation.CLAHE = 16, false },
	} {
		a := artifact()
		change(a)
		_, err := Bytes(a, &Options{Bytes: true})
		require.ErrorContains(t, err, want)
	}
}

// ReadModel refuses files that are no ONNX, of another program, or cut off.
func TestReadModelErrors(t *testing.T) {
	whole, err := Bytes(artifact(), nil)
	require.NoError(t, err)
	foreign := message{}
	foreign.int(modelIRVersion, 8)
	for want, b := range map[string][]byte{
		"no ONNX file":                     []byte("\x89PNG\r\n"),
		"of another program":               foreign,
		"no ONNX file, or a damaged one: ": whole[:300],
	} {
		path := filepath.Join(t.TempDir(), "model.onnx")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		_, _, err := ReadModel(path)
		require.ErrorContains(t, err, want)
	}
	_, _, err = ReadModel(filepath.Join(t.TempDir(), "none"))
	require.ErrorContains(t, err, "cannot read the model")
}

// slow convolves a map (C, h, w) with zero padding, in plain loops.
func slow(x []float32, h, w int, k *Kernel) []float32 {
	out := make([]float32, k.Out*h*w)
	for o := range k.Out {
		for y := range h {
			for col := range w {
				sum := 0.0
				if k.Bias != nil {
					sum = float64(k.Bias[o])
				}
				for c := range k.In {
					for ky := range k.Height {
						for kx := range k.Width {
							iy, ix := y+ky-k.Height/2, col+kx-k.Width/2
							if iy >= 0 && iy < h && ix >= 0 && ix < w {
								sum += float64(k.Weight[((o*k.In+c)*k.Height+ky)*k.Width+kx]) * float64(x[(c*h+iy)*w+ix])
							}
						}
					}
				}
				out[(o*h+y)*w+col] = float32(sum)
			}
		}
	}
	return out
}

func random(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = r.Float32()*2 - 1
	}
	return v
}

func kernel(r *rand.Rand, out, in, size int) *Kernel {
	return &Kernel{Out: out, In: in, Height: size, Width: size, Weight: random(r, out*in*size*size), Bias: random(r, out)}
}

// The folded columns give the same values as two convolutions and a part of the last one,
// up to rounding, at the border as well.
func TestFold(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	const h, w, channels, width, classes, from = 4, 5, 6, 7, 3, 2
	x := random(r, channels*h*w)
	k1, k2, last := kernel(r, width, channels, 3), kernel(r, width, width, 3), kernel(r, classes, from+width+1, 1)
	part := &Kernel{Out: classes, In: width, Height: 1, Width: 1}
	for o := range classes {
		part.Weight = append(part.Weight, last.Weight[o*last.In+from:][:width]...)
	}
	want := slow(slow(slow(x, h, w, k1), h, w, k2), h, w, part)

	bias := make([]float64, classes)
	got := slow(slow(x, h, w, fold(last, from, k1, k2, bias)), h, w, shifts(classes))
	for o := range classes {
		for i := range h * w {
			require.InDelta(t, want[o*h*w+i], float64(got[o*h*w+i])+bias[o], 2e-5) // sums of a few hundred products in float32
		}
	}
}

func TestFolded(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	w := newWeights(state(3)).Part("layers.1")
	a := w.BatchNorm(8)
	k := kernel(r, 8, 2, 3)
	x := random(r, 2*12)
	plain, folded := slow(x, 3, 4, k), slow(x, 3, 4, k.Folded(a))
	gain, _ := w.Tensor("weight")
	bias, _ := w.Tensor("bias")
	mean, _ := w.Tensor("running_mean")
	variance, _ := w.Tensor("running_var")
	for i, v := range plain {
		c := i / 12
		want := (float64(v)-float64(mean[c]))/math.Sqrt(float64(variance[c])+1e-5)*float64(gain[c]) + float64(bias[c])
		require.InDelta(t, want, folded[i], 1e-5)
	}
}

// The expected numbers are from PyTorch 1.13.1:
//
//	w = torch.arange(12.).reshape(2, 3, 2, 1) - 4
//	torch._weight_norm(w, torch.tensor([2., 3.]).reshape(2, 1, 1, 1), 0).flatten()[[0, 3, 8, 11]]
//	u, v = torch.tensor([0.6, 0.8]), torch.ones(6) / 6 ** 0.5
//	(w / torch.dot(u, torch.mv(w.reshape(2, -1), v))).flatten()[[0, 3, 8, 11]]
func TestNorms(t *testing.T) {
	v := make([]float32, 12)
	for i := range v {
		v[i] = float32(i) - 4
	}
	unit := make([]float32, 6)
	for i := range unit {
		unit[i] = float32(1 / math.Sqrt(6))
	}
	w := newWeights(&checkpoint.File{Tensors: []checkpoint.Tensor{
		checkpoint.FromFloat32("c.weight_v", v, 2, 3, 2, 1), checkpoint.FromFloat32("c.weight_g", []float32{2, 3}, 2, 1, 1, 1),
		checkpoint.FromFloat32("c.weight_orig", v, 2, 3, 2, 1),
		checkpoint.FromFloat32("c.weight_u", []float32{0.6, 0.8}, 2), checkpoint.FromFloat32("c.weight_v_", unit, 6),
	}}).Part("c")
	for _, c := range []struct {
		norm network.Norm
		want []float64
	}{
		{network.NormWeight, []float64{-1.436842441558838, -0.3592106103897095, 1.0178266763687134, 1.7811967134475708}},
		{network.NormSpectral, []float64{-0.6048123240470886, -0.15120308101177216, 0.6048123240470886, 1.0584216117858887}},
	} {
		if c.norm == network.NormSpectral { // both norms have a tensor called weight_v
			t := w.all["c.weight_v_"]
			t.Name = "c.weight_v"
			w.all["c.weight_v"] = t
		}
		k := w.Conv(c.norm)
		require.Equal(t, []int{2, 3, 2, 1}, []int{k.Out, k.In, k.Height, k.Width})
		for i, at := range []int{0, 3, 8, 11} {
			require.InDelta(t, c.want[i], k.Weight[at], 1e-6)
		}
	}
}

func TestRegisterTwice(t *testing.T) {
	require.Panics(t, func() { RegisterEncoder("resnet18", resnet) })
}

// For any bytes, reading ends with an error or with a model that passes its Check.
func FuzzReadModel(f *testing.F) {
	whole, err := Bytes(artifact(), nil)
	require.NoError(f, err)
	f.Add(whole[:2000])
	f.Add(binary.AppendUvarint([]byte{modelGraph<<3 | 2}, math.MaxUint64))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _, err := readModel(strings.NewReader(string(b)), "file")
		require.True(t, err != nil || m.Check() == nil)
	})
}

// Package onnxfile writes a trained model as one ONNX file and reads the description of
// the model from such a file. The file takes prepared images and returns probabilities:
// its graph contains the normalization, the networks of all folds, softmax or sigmoid,
// the mean over mirror images and the mean over the folds. Its metadata contain the whole
// predict.Model, with the operating point. Write needs only the description of the
// network and its weights, not libtorch.
//
// A batch norm that directly follows a convolution is folded into it; the others become a
// multiplication and an addition. The hypercolumn head is folded as in package
// hypercolumn.
package onnxfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/internal/strict"
	"github.com/hcunet/hcunet/network"
	"github.com/hcunet/hcunet/predict"
)

// The names of a file's input and output.
const (
	Input  = "images"        // (N, Task.Channels, H, W)
	Output = "probabilities" // (N, Task.Outputs, H, W)
)

// Options are the options of a file; nil means all defaults.
type Options struct {
	// Bytes makes the file take images as uint8, with values from 0 to 255. Otherwise it
	// takes float32 in [0, 1]. It is an error for a model whose prepared images have other
	// than 8 bits or are resized for the network.
	Bytes bool

	// Fixed makes the file take only images of the model's size. Some programs then
	// compute a little faster.
	Fixed bool

	// Batch is the number of images that the file takes at a time; 0 means any number.
	Batch int
}

// An Encoder adds the nodes of an encoder to g and returns the maps that the encoder's
// Features would return for images x. w has the encoder's weights under the names of its
// state.
type Encoder func(g *Graph, w *Weights, x Value) []Value

var (
	mutex    sync.RWMutex
	encoders = map[string]Encoder{"resnet18": resnet, "resnet34": resnet}
)

// RegisterEncoder registers an encoder under its name in package encoder. It panics if an
// encoder of that name is already registered.
func RegisterEncoder(name string, e Encoder) {
	mutex.Lock()
	defer mutex.Unlock()
	if _, ok := encoders[name]; ok {
		panic(fmt.Errorf("onnxfile: encoder %q is registered already", name))
	}
	encoders[name] = e
}

func findEncoder(name string) (Encoder, error) {
	mutex.RLock()
	defer mutex.RUnlock()
	e, ok := encoders[name]
	if !ok {
		return nil, fmt.Errorf("onnxfile: network: encoder: %q cannot be written, only %s; RegisterEncoder adds others",
			name, strings.Join(slices.Sorted(maps.Keys(encoders)), ", "))
	}
	return e, nil
}

// maxMessage is the largest size of a file in bytes, because a message of protobuf must be
// smaller than 2 GiB. Tests make it smaller.
var maxMessage int64 = math.MaxInt32

// Write writes an artifact to path. If the file would have 2 GiB or more, the large weights
// are written to path.data instead. After an error there is no incomplete file. Equal
// artifacts give equal bytes.
func Write(path string, a *predict.Artifact, opt *Options) error {
	f, err := build(a, opt)
	if err != nil {
		return err
	}
	external := ""
	if f.size("") > maxMessage {
		external = filepath.Base(path) + ".data"
		if err := atomicfile.Write(path+".data", func(w io.Writer) error { return f.writeLarge(w, external) }); err != nil {
			return err
		}
	}
	return atomicfile.Write(path, func(w io.Writer) error { return f.write(w, external) })
}

// Bytes returns the content of an artifact's file. It is an error if it would have 2 GiB or
// more.
func Bytes(a *predict.Artifact, opt *Options) ([]byte, error) {
	f, err := build(a, opt)
	if err != nil {
		return nil, err
	}
	size := f.size("")
	if size > maxMessage {
		return nil, fmt.Errorf("onnxfile: %d bytes do not fit into one message of protobuf; write the model to a file, or choose fewer folds", size)
	}
	var b bytes.Buffer
	b.Grow(int(size))
	err = f.write(&b, "")
	return b.Bytes(), err
}

// A file holds the parts of a file that is to be written.
type file struct {
	head          message // the fields of the model before the graph
	before, after message // the parts of the graph before and after its constants
	constants     []*constant
}

func build(a *predict.Artifact, opt *Options) (*file, error) {
	o := Options{}
	if opt != nil {
		o = *opt
	}
	if err := a.Check(); err != nil {
		return nil, err
	}
	if o.Batch < 0 {
		return nil, fmt.Errorf("onnxfile: a batch of %d images; wanted 0 for any number, or more", o.Batch)
	}
	if len(a.Weights) == 0 {
		return nil, errNoWeights
	}
	var cfg network.Config
	if err := strict.Unmarshal("onnxfile: the model's network", a.Network, &cfg); err != nil {
		return nil, err
	}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	encode, err := findEncoder(cfg.Encoder)
	if err != nil {
		return nil, err
	}
	if o.Bytes && (a.Preparation.Bits != 8 || a.Size() != a.Preparation.Size) {
		return nil, fmt.Errorf("onnxfile: images as bytes, but the model's have %d bits and are brought from %d to %d pixels as numbers; leave Bytes out",
			a.Preparation.Bits, a.Preparation.Size, a.Size())
	}
	f := &file{}
	err = try(func() {
		g := newGraph()
		f.head = header(&a.Model, o)
		g.model(a, cfg, encode, o)
		in, out := interfaces(&a.Model, o)
		f.before, f.after = g.parts("hcunet", in, out)
		f.constants = g.constants
	})
	return f, err
}

// interfaces returns the descriptions of the graph's input and output.
func interfaces(m *predict.Model, o Options) (in, out []message) {
	h, w := dim{name: "height"}, dim{name: "width"}
	if o.Fixed {
		h, w = dim{size: m.Size()}, dim{size: m.Size()}
	}
	element := int64(typeFloat)
	if o.Bytes {
		element = typeUint8
	}
	n := dim{name: "batch"}
	if o.Batch > 0 {
		n = dim{size: o.Batch}
	}
	return []message{valueInfo(Input, element, []dim{n, {size: m.Task.Channels}, h, w})},
		[]message{valueInfo(Output, typeFloat, []dim{n, {size: m.Task.Outputs()}, h, w})}
}

// model adds the nodes that compute probabilities from images.
func (g *Graph) model(a *predict.Artifact, cfg network.Config, encode Encoder, o Options) {
	g.channels[Input] = a.Task.Channels
	x := g.normalize(Input, a.Inference.Input, o.Bytes)
	g.channels[x] = a.Inference.Input.Channels(a.Task.Channels)
	if a.Inference.Flip {
		x = g.Cat(0, x, g.Mirror(x))
	}
	var sum Value
	for i, weights := range a.Weights {
		w := newWeights(weights)
		u := &unet{g: g, cfg: cfg, w: w.Part("layers")}
		var err error
		var p Value
		err = try(func() {
			p = u.scores(encode, x)
			if n := g.channels[p]; n != a.Task.Outputs() {
				failf("the network gives %d scores; the task has %d outputs", n, a.Task.Outputs())
			}
			w.finish()
		})
		if err != nil {
			failf("fold %d: %s", i, strings.TrimPrefix(err.Error(), "onnxfile: "))
		}
		if a.Task.Output == data.Sigmoid {
			p = g.Sigmoid(p)
		} else {
			p = g.Softmax(p, 1)
		}
		if a.Inference.Flip {
			straight, mirrored := g.halves(p)
			p = g.Times(g.Add(straight, g.Mirror(mirrored)), 0.5)
		}
		if i > 0 {
			p = g.Add(sum, p)
		}
		sum = p
	}
	if n := len(a.Weights); n > 1 {
		sum = g.Node("Div", []Value{sum, g.Floats([]float32{float32(n)})})
	}
	g.identity(sum, Output)
}

// normalize returns (x - mean)/std for values in [0, 1].
func (g *Graph) normalize(x Value, in predict.Input, isBytes bool) Value {
	if isBytes {
		x = g.Node("Cast", []Value{x}, Attr{"to", typeFloat})
		x = g.Node("Div", []Value{x, g.Floats([]float32{255})})
	}
	if n := len(in.Mean); n > 0 {
		mean, std := make([]float32, n), make([]float32, n)
		for c := range n {
			mean[c], std[c] = float32(in.Mean[c]), float32(in.Std[c])
		}
		x = g.Node("Sub", []Value{x, g.Floats(mean, 1, n, 1, 1)})
		x = g.Node("Div", []Value{x, g.Floats(std, 1, n, 1, 1)})
	}
	return x
}

// Keys of a file's metadata.
const (
	formatKey  = "format"
	format     = "hcunet model"
	versionKey = "format_version"
	version    = "1"
	modelKey   = "model"           // the predict.Model as JSON
	pointKey   = "operating_point" // Model.Point as JSON, for programs that need only this part
	classesKey = "classes"         // Model.Task.Classes as JSON
	inputKey   = "input"           // type and range of the images: "float32 in [0, 1]" or "uint8"
	digestKey  = "artifact_sha256" // Model.Digest
	noticeKey  = "notice"
)

func header(m *predict.Model, o Options) (h message) {
	asJSON := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			failf("%v", err)
		}
		return string(b)
	}
	takes := "float32 in [0, 1]"
	if o.Bytes {
		takes = "uint8"
	}
	h.int(modelIRVersion, irVersion)
	h.string(modelProducer, "hcunet")
	h.string(modelDoc, m.Card())
	var set message
	set.int(opsetVersion, opset)
	h.message(modelOpset, set)
	for _, e := range [][2]string{
		{formatKey, format}, {versionKey, version}, {modelKey, asJSON(m)}, {pointKey, asJSON(m.Point)},
		{classesKey, asJSON(m.Task.Classes)}, {inputKey, takes}, {digestKey, m.Digest}, {noticeKey, strings.Join(m.Notices(), "; ")},
	} {
		h.entry(modelMetadata, e[0], e[1])
	}
	return h
}

// graphSize returns the size of the graph's message in bytes.
func (f *file) graphSize(external string) int64 {
	size := int64(len(f.before) + len(f.after))
	offset := int64(0)
	for _, c := range f.constants {
		size += bytesSize(graphTensor, c.messageSize(external, offset))
		if c.outside(external) {
			offset += c.size()
		}
	}
	return size
}

func (f *file) size(external string) int64 {
	return int64(len(f.head)) + bytesSize(modelGraph, f.graphSize(external))
}

// write writes the file. external is the name of a second file with the large constants,
// or "" if they are part of this one.
func (f *file) write(w io.Writer, external string) error {
	m := slices.Clone(f.head)
	m.head(modelGraph, f.graphSize(external))
	m = append(m, f.before...)
	offset := int64(0)
	for _, c := range f.constants {
		m.head(graphTensor, c.messageSize(external, offset))
		m = append(m, c.head(external, offset)...)
		if c.outside(external) {
			offset += c.size()
			continue
		}
		if _, err := w.Write(m); err != nil {
			return err
		}
		m = m[:0]
		if err := c.write(w); err != nil {
			return err
		}
	}
	_, err := w.Write(append(m, f.after...))
	return err
}

// writeLarge writes the constants that the file refers to as those of external.
func (f *file) writeLarge(w io.Writer, external string) error {
	for _, c := range f.constants {
		if !c.outside(external) {
			continue
		}
		if err := c.write(w); err != nil {
			return err
		}
	}
	return nil
}

// ReadModel returns the description of the model in an ONNX file that Write has written,
// and whether the file takes images as uint8. It reads only the metadata, not the
// weights. A damaged file and a file of another program are errors.
func ReadModel(path string) (m *predict.Model, takesBytes bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, fmt.Errorf("onnxfile: cannot read the model: %w", err)
	}
	defer f.Close()
	return readModel(f, path)
}

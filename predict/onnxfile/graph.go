package onnxfile

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// A Value is the name of a tensor in a Graph.
type Value string

// A Graph is the graph of an ONNX file that is being built. Its methods add nodes and
// return the nodes' outputs, which are maps (N, C, H, W) unless something else is said. A
// map with an unexpected number of channels makes them panic; Write and Bytes return
// this as an error.
type Graph struct {
	nodes     []message
	constants []*constant
	names     int
	shared    map[string]Value // tensors of integers by their content
	channels  map[Value]int    // number of channels of each map
}

func newGraph() *Graph { return &Graph{shared: map[string]Value{}, channels: map[Value]int{}} }

// Node adds a node for an operator of ONNX's operator set 17 and returns its only output.
// The Graph assumes that the output has as many channels as the first input.
func (g *Graph) Node(op string, inputs []Value, attributes ...Attr) Value {
	return g.add(op, inputs, 1, attributes)[0]
}

func (g *Graph) add(op string, inputs []Value, outputs int, attributes []Attr) []Value {
	var m message
	for _, in := range inputs {
		m.string(nodeInput, string(in))
	}
	out := make([]Value, outputs)
	for i := range out {
		out[i] = g.name(op)
		m.string(nodeOutput, string(out[i]))
		g.channels[out[i]] = g.channels[inputs[0]]
	}
	m.string(nodeName, "node_"+string(out[0]))
	m.string(nodeOp, op)
	for _, a := range attributes {
		m.message(nodeAttribute, a.message())
	}
	g.nodes = append(g.nodes, m)
	return out
}

func (g *Graph) name(of string) Value {
	g.names++
	return Value(of + "_" + strconv.Itoa(g.names))
}

// Floats adds a constant tensor and returns it. It keeps v.
func (g *Graph) Floats(v []float32, shape ...int) Value {
	g.check(len(v), shape)
	c := &constant{name: string(g.name("weight")), shape: shape, floats: v}
	g.constants = append(g.constants, c)
	return Value(c.name)
}

// Ints adds a constant tensor of one dimension, or returns an equal one that exists.
func (g *Graph) Ints(v ...int64) Value {
	key := fmt.Sprint(v)
	if have, ok := g.shared[key]; ok {
		return have
	}
	c := &constant{name: string(g.name("ints")), shape: []int{len(v)}, ints: v}
	g.constants = append(g.constants, c)
	g.shared[key] = Value(c.name)
	return Value(c.name)
}

func (g *Graph) check(n int, shape []int) {
	size := 1
	for _, d := range shape {
		size *= d
	}
	if n != size {
		failf("%d numbers for a tensor of shape %v", n, shape)
	}
}

// Conv convolves x, with padding pixels of zeros on each side, and adds the bias of k if it
// has one.
func (g *Graph) Conv(x Value, k *Kernel, stride, padding int) Value {
	if c := g.channels[x]; c != k.In {
		failf("a convolution %sof %d channels for a map of %d", k.name(), k.In, c)
	}
	in := []Value{x, g.Floats(k.Weight, k.Out, k.In, k.Height, k.Width)}
	if k.Bias != nil {
		in = append(in, g.Floats(k.Bias, k.Out))
	}
	y := g.Node("Conv", in,
		Attr{"kernel_shape", []int{k.Height, k.Width}}, Attr{"strides", []int{stride, stride}},
		Attr{"pads", []int{padding, padding, padding, padding}})
	g.channels[y] = k.Out
	return y
}

// Scale applies a to each channel of x.
func (g *Graph) Scale(x Value, a *Affine) Value {
	c := len(a.Scale)
	if have := g.channels[x]; c != have {
		failf("a batch norm of %d channels for a map of %d", c, have)
	}
	x = g.Node("Mul", []Value{x, g.Floats(a.Scale, 1, c, 1, 1)})
	return g.Node("Add", []Value{x, g.Floats(a.Shift, 1, c, 1, 1)})
}

// ReLU returns max(x, 0).
func (g *Graph) ReLU(x Value) Value { return g.Node("Relu", []Value{x}) }

// Sigmoid returns 1/(1 + exp(-x)).
func (g *Graph) Sigmoid(x Value) Value { return g.Node("Sigmoid", []Value{x}) }

// Softmax returns exp(x), normalized so that the sum along axis is 1.
func (g *Graph) Softmax(x Value, axis int) Value {
	return g.Node("Softmax", []Value{x}, Attr{"axis", axis})
}

// Add returns the sum of two maps.
func (g *Graph) Add(a, b Value) Value {
	if g.channels[a] != g.channels[b] {
		failf("the sum of maps of %d and %d channels", g.channels[a], g.channels[b])
	}
	return g.Node("Add", []Value{a, b})
}

// Times multiplies all elements of x by one number.
func (g *Graph) Times(x Value, by float64) Value {
	return g.Node("Mul", []Value{x, g.Floats([]float32{float32(by)})})
}

// Cat concatenates maps along an axis.
func (g *Graph) Cat(axis int, maps ...Value) Value {
	y := g.Node("Concat", maps, Attr{"axis", axis})
	if axis == 1 {
		for _, m := range maps[1:] {
			g.channels[y] += g.channels[m]
		}
	}
	return y
}

// MaxPool takes the maximum over square windows. Pixels of the padding are never the
// maximum.
func (g *Graph) MaxPool(x Value, kernel, stride, padding int) Value {
	return g.Node("MaxPool", []Value{x}, Attr{"kernel_shape", []int{kernel, kernel}}, Attr{"strides", []int{stride, stride}},
		Attr{"pads", []int{padding, padding, padding, padding}})
}

// Widen adds channels of zeros to x until it has the given number of channels.
func (g *Graph) Widen(x Value, channels int) Value {
	more := channels - g.channels[x]
	if more == 0 {
		return x
	}
	y := g.Node("Pad", []Value{x, g.Ints(0, 0, 0, 0, 0, int64(more), 0, 0)})
	g.channels[y] = channels
	return y
}

// PixelShuffle rearranges (N, 4C, H, W) to (N, C, 2H, 2W), as torch.pixel_shuffle does.
func (g *Graph) PixelShuffle(x Value) Value {
	y := g.Node("DepthToSpace", []Value{x}, Attr{"blocksize", 2}, Attr{"mode", "CRD"})
	if g.channels[x]%4 != 0 {
		failf("pixel shuffle of %d channels; wanted a multiple of 4", g.channels[x])
	}
	g.channels[y] = g.channels[x] / 4
	return y
}

// Blur averages each pixel with its neighbours to the left, above, and left above. At the
// border, the first column and row are repeated.
func (g *Graph) Blur(x Value) Value {
	x = g.Node("Pad", []Value{x, g.Ints(0, 0, 1, 1, 0, 0, 0, 0)}, Attr{"mode", "edge"})
	return g.Node("AveragePool", []Value{x}, Attr{"kernel_shape", []int{2, 2}}, Attr{"strides", []int{1, 1}})
}

// Mirror mirrors maps left to right.
func (g *Graph) Mirror(x Value) Value {
	return g.Node("Slice", []Value{x, g.Ints(-1), g.Ints(math.MinInt64), g.Ints(3), g.Ints(-1)})
}

// Grow multiplies height and width by an integer, with bilinear interpolation. The outer
// edges of the maps are aligned, not the centres of the corner pixels, as in torch with
// align_corners=False.
func (g *Graph) Grow(x Value, by int) Value {
	scales := g.Floats([]float32{1, 1, float32(by), float32(by)}, 4)
	return g.Node("Resize", []Value{x, "", scales}, Attr{"mode", "linear"}, Attr{"coordinate_transformation_mode", "half_pixel"})
}

// Fit resizes x to the height and width of another map. Each pixel is a copy of the one
// that torch's mode "nearest" takes.
func (g *Graph) Fit(x, to Value) Value {
	sides := func(of Value, from, end int64) Value {
		shape := g.Node("Shape", []Value{of})
		return g.Node("Slice", []Value{shape, g.Ints(from), g.Ints(end)})
	}
	size := g.Cat(0, sides(x, 0, 2), sides(to, 2, 4))
	return g.Node("Resize", []Value{x, "", "", size}, Attr{"mode", "nearest"},
		Attr{"coordinate_transformation_mode", "asymmetric"}, Attr{"nearest_mode", "floor"})
}

// reshape returns x with another shape. A side of 0 keeps x's own, a side of -1 is computed
// from the others.
func (g *Graph) reshape(x Value, shape ...int64) Value {
	return g.Node("Reshape", []Value{x, g.Ints(shape...)})
}

// halves splits a batch into its first and its second half.
func (g *Graph) halves(x Value) (first, second Value) {
	out := g.add("Split", []Value{x}, 2, []Attr{{"axis", 0}})
	return out[0], out[1]
}

// parts returns the parts of the graph's message before and after its constants.
func (g *Graph) parts(name string, inputs, outputs []message) (before, after message) {
	for _, n := range g.nodes {
		before.message(graphNode, n)
	}
	before.string(graphName, name)
	for _, in := range inputs {
		after.message(graphInput, in)
	}
	for _, out := range outputs {
		after.message(graphOutput, out)
	}
	return before, after
}

// bytesSize returns the number of bytes of a field that holds a message of size bytes.
func bytesSize(field protowire.Number, size int64) int64 {
	return int64(protowire.SizeTag(field)) + int64(protowire.SizeVarint(uint64(size))) + size
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// identity adds a node that returns x under the given name.
func (g *Graph) identity(x Value, name string) {
	var m message
	m.string(nodeInput, string(x))
	m.string(nodeOutput, name)
	m.string(nodeName, "node_"+name)
	m.string(nodeOp, "Identity")
	g.nodes = append(g.nodes, slices.Clip(m))
}

package onnxfile

import (
	"encoding/binary"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of the ONNX messages that are used here, from onnx.proto, version 8 of
// the format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
const (
	modelIRVersion  = 1
	modelProducer   = 2
	modelVersion    = 3 // the producer's version
	modelDoc        = 6
	modelGraph      = 7
	modelOpset      = 8
	modelMetadata   = 14
	opsetVersion    = 2
	entryKey        = 1
	entryValue      = 2
	graphNode       = 1
	graphName       = 2
	graphTensor     = 5
	graphInput      = 11
	graphOutput     = 12
	nodeInput       = 1
	nodeOutput      = 2
	nodeName        = 3
	nodeOp          = 4
	nodeAttribute   = 5
	attributeName   = 1
	attributeInt    = 3
	attributeString = 4
	attributeInts   = 8
	attributeType   = 20
	tensorDims      = 1
	tensorType      = 2
	tensorName      = 8
	tensorRaw       = 9
	tensorExternal  = 13
	tensorLocation  = 14
	valueName       = 1
	valueType       = 2
	typeTensor      = 1
	typeElement     = 1
	typeShape       = 2
	shapeDim        = 1
	dimValue        = 1
	dimName         = 2
)

// Element types, and types of attributes.
const (
	typeFloat = 1
	typeUint8 = 2
	typeInt64 = 7

	attributeIsInt    = 2
	attributeIsString = 3
	attributeIsInts   = 7
)

const (
	irVersion = 8
	opset     = 17
)

// A message is an encoded protobuf message.
type message []byte

func (m *message) int(field protowire.Number, v int64) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.VarintType), uint64(v))
}

func (m *message) string(field protowire.Number, s string) {
	*m = protowire.AppendString(protowire.AppendTag(*m, field, protowire.BytesType), s)
}

func (m *message) message(field protowire.Number, b message) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, field, protowire.BytesType), b)
}

// head appends the beginning of a field with a message of size bytes; the message itself
// must follow.
func (m *message) head(field protowire.Number, size int64) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.BytesType), uint64(size))
}

func (m *message) entry(field protowire.Number, key, value string) {
	var e message
	e.string(entryKey, key)
	e.string(entryValue, value)
	m.message(field, e)
}

// An Attr is an attribute of a node.
type Attr struct {
	Name  string
	Value any // int, []int or string
}

func (a Attr) message() (m message) {
	m.string(attributeName, a.Name)
	switch v := a.Value.(type) {
	case int:
		m.int(attributeInt, int64(v))
		m.int(attributeType, attributeIsInt)
	case []int:
		for _, i := range v {
			m.int(attributeInts, int64(i))
		}
		m.int(attributeType, attributeIsInts)
	case string:
		m.string(attributeString, v)
		m.int(attributeType, attributeIsString)
	default:
		failf("attribute %s of type %T; wanted int, []int or string", a.Name, v)
	}
	return m
}

// A dim is the size of one dimension of an input or output. If it may be any number, it has
// a name instead.
type dim struct {
	size int
	name string
}

func valueInfo(name string, element int64, shape []dim) (m message) {
	var dims message
	for _, d := range shape {
		var side message
		if d.name != "" {
			side.string(dimName, d.name)
		} else {
			side.int(dimValue, int64(d.size))
		}
		dims.message(shapeDim, side)
	}
	var tensor, kind message
	tensor.int(typeElement, element)
	tensor.message(typeShape, dims)
	kind.message(typeTensor, tensor)
	m.string(valueName, name)
	m.message(valueType, kind)
	return m
}

// A constant is a constant tensor of the file; one of floats and ints is nil.
type constant struct {
	name   string
	shape  []int
	floats []float32
	ints   []int64
}

// size returns the number of bytes of the constant's elements.
func (c *constant) size() int64 { return 4*int64(len(c.floats)) + 8*int64(len(c.ints)) }

// outside returns whether the elements are in the file called external, which is "" if
// there is none. Runtimes use small constants to infer shapes while they load a file, and
// ONNX Runtime 1.32 refuses to take these from another file.
func (c *constant) outside(external string) bool { return external != "" && c.size() >= 1<<10 }

// messageSize returns the size of the constant's message in bytes.
func (c *constant) messageSize(external string, offset int64) int64 {
	size := int64(len(c.head(external, offset)))
	if !c.outside(external) {
		size += c.size()
	}
	return size
}

// head returns the constant's message without its elements. If these are not at offset in
// the file called external, they must follow as its last field.
func (c *constant) head(external string, offset int64) (m message) {
	for _, d := range c.shape {
		m.int(tensorDims, int64(d))
	}
	element := int64(typeFloat)
	if c.ints != nil {
		element = typeInt64
	}
	m.int(tensorType, element)
	m.string(tensorName, c.name)
	if !c.outside(external) {
		m.head(tensorRaw, c.size())
		return m
	}
	m.entry(tensorExternal, "location", external)
	m.entry(tensorExternal, "offset", itoa(offset))
	m.entry(tensorExternal, "length", itoa(c.size()))
	m.int(tensorLocation, 1) // EXTERNAL
	return m
}

// write writes the constant's elements in little-endian order.
func (c *constant) write(w io.Writer) error {
	var b []byte
	flush := func(most int) error {
		if len(b) < most {
			return nil
		}
		_, err := w.Write(b)
		b = b[:0]
		return err
	}
	for _, v := range c.floats {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		if err := flush(1 << 16); err != nil {
			return err
		}
	}
	for _, v := range c.ints {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return flush(1)
}

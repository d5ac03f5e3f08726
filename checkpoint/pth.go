package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
)

// TorchOptions say which tensors of a PyTorch file to read.
type TorchOptions struct {
	// Subtree is the key of the dict that holds the tensors: "model" in files
	// of fastai 1, "state_dict" in many others. Dots separate the keys of
	// nested dicts. Names of tensors begin below the subtree. "." reads all
	// tensors, also of the optimizer, with nested names joined by dots. If
	// Subtree is empty and the top level holds no tensors, the first of
	// "model", "state_dict" and "model_state_dict" that holds tensors is read;
	// otherwise all tensors.
	Subtree string
}

// stateDictKeys are the keys for an empty Subtree.
var stateDictKeys = []string{"model", "state_dict", "model_state_dict"}

const (
	maxDepth    = 64  // depth of nested containers
	maxNameSize = 512 // bytes
)

// OpenTorch reads the file at path; see ReadTorch.
func OpenTorch(path string, o *TorchOptions) (*File, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	st, err := r.Stat()
	if err != nil {
		return nil, err
	}
	f, err := ReadTorch(r, st.Size(), o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// ReadTorch reads the tensors in a file of torch.save, the first size bytes of
// r. It reads all formats: the zip archive of PyTorch 1.6 and later, the
// pickles followed by storages of 0.2 to 1.5, and the tar archive of 0.1, which
// torchvision's first weights still have. Parameters are returned as tensors;
// views, shared and strided tensors as row-major ones. Only the storages of the
// wanted tensors are read, and memory stays within a small multiple of size.
// Tensors have the order of the file.
//
// No code in the pickle is run: a call that does not make a tensor or an
// OrderedDict gives an object without content, which is ignored. ReadTorch
// returns an *UnsupportedError for a tensor that Tensor cannot hold (sparse,
// quantized, complex128) and for a file without tensors, such as a whole
// pickled module or TorchScript. For a broken file it returns a *FormatError.
//
// Source: torch/serialization.py, _legacy_load, legacy_load within it, and _load;
// torch/_utils.py.
func ReadTorch(r io.ReaderAt, size int64, o *TorchOptions) (*File, error) {
	if o == nil {
		o = &TorchOptions{}
	}
	head, err := readHead(r)
	if err != nil {
		return nil, err
	}
	t := &torchReader{size: size, copies: 4*size + 1<<20, loaded: map[string][]byte{}, element: map[string]int{}}
	t.machine = pickleMachine{ops: maxPickleOps, work: 1 << 20, persistent: t.persistentID, call: t.call}
	var root value
	switch {
	case isZip(head):
		root, err = t.readZip(r)
	case isTar(head):
		root, err = t.readTar(r)
	case isTorchPickle(head):
		root, err = t.readLegacy(r)
	default:
		err = unknownKind(head)
	}
	if err != nil {
		return nil, err
	}
	return t.collect(root, o.Subtree)
}

// A torchReader reads one file.
type torchReader struct {
	size    int64
	machine pickleMachine
	element map[string]int // bytes per element of each storage, by key
	load    func(key string) ([]byte, error)
	loaded  map[string][]byte
	total   int64 // bytes of the storages that were loaded
	copies  int64 // bytes left for copies of strided tensors
	visits  int   // values left for collect to visit
	names   int   // bytes left for names
}

// A storage is a part of a block of memory in the file, as elements of one
// type.
type storage struct {
	key    string
	dtype  DType // "" for an unknown type
	name   string
	offset int64 // elements
}

// A torchTensor is a strided view of a storage, in elements.
type torchTensor struct {
	storage *storage
	dtype   DType
	offset  int64
	shape   []int
	stride  []int64
}

var storageTypes = map[string]DType{
	"DoubleStorage": F64, "FloatStorage": F32, "HalfStorage": F16, "BFloat16Storage": BF16,
	"LongStorage": I64, "IntStorage": I32, "ShortStorage": I16, "CharStorage": I8, "ByteStorage": U8,
	"BoolStorage": Bool, "ComplexFloatStorage": C64,
	"UntypedStorage": U8, "_UntypedStorage": U8,
	// For these types only the size is needed: tensors of them are an error,
	// but in the old format the reader must find what follows their storage.
	"ComplexDoubleStorage": c128, "QInt8Storage": quantized8, "QUInt8Storage": quantized8, "QInt32Storage": quantized32,
}

const (
	c128        DType = "complex128"
	quantized8  DType = "qint8"
	quantized32 DType = "qint32"
)

var torchTypes = map[string]DType{
	"float64": F64, "float32": F32, "float16": F16, "bfloat16": BF16, "float8_e4m3fn": F8E4M3, "float8_e5m2": F8E5M2,
	"int64": I64, "int32": I32, "int16": I16, "int8": I8, "uint64": U64, "uint32": U32, "uint16": U16, "uint8": U8,
	"bool": Bool, "complex64": C64,
}

func elementSize(d DType) int {
	switch d {
	case c128:
		return 16
	case quantized8:
		return 1
	case quantized32:
		return 4
	}
	return d.Size()
}

// readZip reads the pickle of a zip archive; load reads the storages later.
func (t *torchReader) readZip(r io.ReaderAt) (value, error) {
	z, err := zip.NewReader(r, t.size)
	if err != nil {
		return nil, pthError(-1, "%v", err)
	}
	files := make(map[string]*zip.File, len(z.File))
	prefix := ""
	for _, f := range z.File {
		files[f.Name] = f
		if dir, ok := strings.CutSuffix(f.Name, "/data.pkl"); ok && !strings.Contains(dir, "/") {
			prefix = dir + "/"
		}
	}
	if prefix == "" {
		return nil, &KindError{fmt.Sprintf("a zip archive without torch.save's data.pkl; it holds %s", entryNames(z))}
	}
	if files[prefix+"constants.pkl"] != nil {
		return nil, &UnsupportedError{"pth", "a TorchScript archive; save the module's state_dict() with torch.save"}
	}
	read := func(name string, limit int64) ([]byte, error) {
		f := files[name]
		if f == nil {
			return nil, pthError(-1, "%s is missing", name)
		}
		return t.readEntry(f, limit)
	}
	if files[prefix+"byteorder"] != nil {
		order, err := read(prefix+"byteorder", 16)
		if err != nil {
			return nil, err
		}
		if string(order) != "little" {
			return nil, &UnsupportedError{"pth", fmt.Sprintf("byte order %q; save it on a little-endian machine", order)}
		}
	}
	pickled, err := read(prefix+"data.pkl", maxPickleBytes)
	if err != nil {
		return nil, err
	}
	t.load = func(key string) ([]byte, error) { return read(prefix+"data/"+key, t.size) }
	t.machine.in = newPickleReader(bytes.NewReader(pickled), 0, int64(len(pickled)))
	return t.machine.run()
}

// entryNames lists the first names of an archive.
func entryNames(z *zip.Reader) string {
	var names []string
	for i, f := range z.File {
		if i == 4 {
			names = append(names, "...")
			break
		}
		names = append(names, fmt.Sprintf("%.40q", f.Name))
	}
	if names == nil {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

// readEntry reads a stored entry and checks its CRC. All entries together may
// not have more bytes than the archive, so that overlapping entries (a zip
// bomb) are an error.
func (t *torchReader) readEntry(f *zip.File, limit int64) ([]byte, error) {
	n := f.UncompressedSize64
	if f.Method != zip.Store || f.CompressedSize64 != n {
		return nil, &UnsupportedError{"pth", f.Name + " is compressed, which torch.save does not do; save it again"}
	}
	if n > uint64(limit) {
		return nil, pthError(-1, "%s has %d bytes, at most %d are possible", f.Name, n, limit)
	}
	if t.total += int64(n); t.total > t.size {
		return nil, pthError(-1, "%s: the entries overlap", f.Name)
	}
	r, err := f.Open()
	if err != nil {
		return nil, pthError(-1, "%s: %v", f.Name, err)
	}
	defer r.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, pthError(-1, "%s: %v", f.Name, err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF { // the CRC is checked at the end
		return nil, pthError(-1, "%s: %v", f.Name, err)
	}
	return b, nil
}

// The old format: five pickles (magic number, protocol, system, the object, the
// keys of its storages), then each storage as a count of elements and the
// elements, little endian.
//
// Source: torch/serialization.py, MAGIC_NUMBER and PROTOCOL_VERSION.
var magicNumber = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

const protocolVersion = 1001

// readLegacy reads the pickles of the old format; load reads the storages
// later.
func (t *torchReader) readLegacy(r io.ReaderAt) (value, error) {
	in := newPickleReader(r, 0, min(t.size, maxPickleBytes))
	t.machine.in = in
	magic, err := t.machine.run()
	if err != nil {
		return nil, err
	}
	if b, ok := magic.([]byte); !ok || string(b) != magicNumber {
		return nil, pthError(0, "a pickle whose first value is not torch.save's magic number")
	}
	version, err := t.machine.run()
	if err != nil {
		return nil, err
	}
	if version != value(int64(protocolVersion)) {
		return nil, &UnsupportedError{"pth", fmt.Sprintf("protocol version %v, wanted %d", version, protocolVersion)}
	}
	if _, err := t.machine.run(); err != nil { // byte order and type sizes of the system, which storages do not use
		return nil, err
	}
	root, err := t.machine.run()
	if err != nil {
		return nil, err
	}
	keys, err := t.machine.run()
	if err != nil {
		return nil, err
	}
	order, ok := keys.(*list)
	if !ok {
		return nil, in.fail("the list of storages is missing")
	}
	places := map[string]place{}
	at := in.at
	for _, k := range order.items {
		key, _ := k.(string)
		size := t.element[key]
		if _, twice := places[key]; size == 0 || twice {
			return nil, in.fail("storage %q is listed but belongs to no tensor, or is listed twice", key)
		}
		var b [8]byte
		if n, err := r.ReadAt(b[:], at); n < len(b) {
			return nil, pthError(at, "storage %q is missing: %v", key, err)
		}
		n := int64(binary.LittleEndian.Uint64(b[:]))
		at += 8
		if n < 0 || n > (t.size-at)/int64(size) {
			return nil, pthError(at-8, "storage %q has %d elements of %d bytes, %d bytes are left", key, n, size, t.size-at)
		}
		places[key] = place{at, at + n*int64(size)}
		at += n * int64(size)
	}
	t.load = func(key string) ([]byte, error) {
		p, ok := places[key]
		if !ok {
			return nil, pthError(-1, "storage %q is missing", key)
		}
		return readPlace(r, p, key)
	}
	return root, nil
}

// readPlace reads a storage. The caller has checked that it lies in the file.
func readPlace(r io.ReaderAt, p place, key string) ([]byte, error) {
	b := make([]byte, p.hi-p.lo)
	if n, err := r.ReadAt(b, p.lo); n < len(b) {
		return nil, pthError(p.lo, "storage %q: %v", key, err)
	}
	return b, nil
}

// persistentID makes a storage of ("storage", type, key, location, elements[,
// view]), where view is nil or (key, offset, elements).
func (t *torchReader) persistentID(id value) (value, error) {
	in := t.machine.in
	args, ok := id.(*tuple)
	if !ok || len(args.items) == 0 {
		return nil, in.fail("a persistent id that is not a tuple")
	}
	if args.items[0] == value("module") { // the source text of a class
		return &opaque{"a class with its source"}, nil
	}
	if len(args.items) < 5 || args.items[0] != value("storage") {
		return nil, in.fail("a persistent id that is not a storage")
	}
	class, ok1 := args.items[1].(*global)
	key, ok2 := args.items[2].(string)
	if !ok1 || !ok2 {
		return nil, in.fail("a storage without type or key")
	}
	s := &storage{key: key, dtype: storageTypes[class.name], name: class.module + "." + class.name}
	if !strings.HasPrefix(class.module, "torch") {
		s.dtype = ""
	}
	if size := elementSize(s.dtype); t.element[key] == 0 {
		t.element[key] = size
	}
	if len(args.items) > 5 {
		if view, ok := args.items[5].(*tuple); ok {
			if len(view.items) != 3 {
				return nil, in.fail("a view of a storage that is not a triple")
			}
			offset, ok := view.items[1].(int64)
			if !ok || offset < 0 {
				return nil, in.fail("a view of a storage at %v", view.items[1])
			}
			s.offset = offset
		}
	}
	return s, nil
}

// call returns the result of the few callables that state dicts need, and an
// opaque object for every other.
func (t *torchReader) call(f *global, args []value) (value, error) {
	in := t.machine.in
	switch f.module + "." + f.name {
	case "collections.OrderedDict", "builtins.dict", "__builtin__.dict":
		return t.newDict(args)
	case "collections.defaultdict":
		return &dict{}, nil
	case "torch.Size":
		if len(args) == 1 {
			if s, ok := args[0].(*tuple); ok {
				return s, nil
			}
		}
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2":
		if len(args) < 4 {
			return nil, in.fail("%s with %d arguments", f.name, len(args))
		}
		if len(args) > 6 {
			if meta, ok := args[6].(*dict); ok && len(meta.keys) > 0 {
				return &opaque{"torch._utils._rebuild of a lazily conjugated or negated tensor"}, nil
			}
		}
		return t.newTensor(args, nil)
	case "torch._utils._rebuild_tensor_v3":
		if len(args) < 7 {
			return nil, in.fail("%s with %d arguments", f.name, len(args))
		}
		dtype, ok := args[6].(*global)
		if !ok {
			return nil, in.fail("a tensor without type")
		}
		return t.newTensor(args, dtype)
	case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
		"torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch.autograd.variable.Variable":
		if len(args) == 0 {
			return &variable{by: f.module + "." + f.name}, nil
		}
		switch v := args[0].(type) {
		case *torchTensor, *variable, *opaque:
			return v, nil
		}
	case "torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type":
		if len(args) >= 3 {
			rebuild, ok1 := args[0].(*global)
			with, ok2 := args[2].(*tuple)
			if ok1 && ok2 && rebuild.module == "torch._utils" {
				return t.call(rebuild, with.items)
			}
		}
	}
	if _, tensor := tensorTypes[f.name]; tensor && f.module == "torch" && len(args) == 0 {
		return &variable{by: f.module + "." + f.name}, nil
	}
	return &opaque{f.module + "." + f.name}, nil
}

// tensorOf returns v as a tensor. The tensor of a variable is given by its
// state: four values (storage, offset, size, stride), or five values, of which
// the first is the tensor.
//
// Source: torch/_tensor.py, Tensor.__setstate__.
func (t *torchReader) tensorOf(v value) (*torchTensor, bool) {
	switch v := v.(type) {
	case *torchTensor:
		return v, true
	case *variable:
		if v.state == nil {
			return nil, false
		}
		switch len(v.state.items) {
		case 4:
			x, err := t.newTensor(v.state.items, nil)
			tensor, ok := x.(*torchTensor)
			return tensor, err == nil && ok
		case 5:
			tensor, ok := v.state.items[0].(*torchTensor)
			return tensor, ok
		}
	}
	return nil, false
}

// newDict makes a dict, with the items of a list of pairs if there is one.
func (t *torchReader) newDict(args []value) (value, error) {
	d := &dict{}
	if len(args) == 0 {
		return d, nil
	}
	l, ok := args[0].(*list)
	if !ok {
		return d, nil
	}
	if t.machine.work -= len(l.items); t.machine.work < 0 {
		return nil, t.machine.in.fail("too many dicts are made from lists")
	}
	for _, item := range l.items {
		var pair []value
		switch p := item.(type) {
		case *tuple:
			pair = p.items
		case *list:
			pair = p.items
		}
		if len(pair) != 2 {
			return nil, t.machine.in.fail("a dict of items that are not pairs")
		}
		d.set(pair[0], pair[1])
	}
	return d, nil
}

// newTensor makes a tensor from (storage, offset, size, stride, ...). When it
// is read, it is checked that it lies within its storage.
func (t *torchReader) newTensor(args []value, dtype *global) (value, error) {
	in := t.machine.in
	s, ok := args[0].(*storage)
	if !ok {
		return nil, in.fail("a tensor without storage")
	}
	x := &torchTensor{storage: s, dtype: s.dtype}
	if dtype != nil {
		if x.dtype, ok = torchTypes[dtype.name]; !ok {
			return &opaque{"torch._utils._rebuild of a tensor of " + dtype.module + "." + dtype.name}, nil
		}
	} else if s.dtype.Size() == 0 {
		return &opaque{"torch._utils._rebuild of a tensor on " + s.name}, nil
	}
	if x.offset, ok = args[1].(int64); !ok || x.offset < 0 {
		return nil, in.fail("a tensor at offset %v", args[1])
	}
	shape, ok1 := args[2].(*tuple)
	stride, ok2 := args[3].(*tuple)
	if !ok1 || !ok2 || len(shape.items) != len(stride.items) || len(shape.items) > maxShape {
		return nil, in.fail("a tensor whose size and stride have different lengths")
	}
	for i := range shape.items {
		n, ok1 := shape.items[i].(int64)
		step, ok2 := stride.items[i].(int64)
		if !ok1 || !ok2 || n < 0 || step < 0 || n > math.MaxInt {
			return nil, in.fail("a tensor with size %v and stride %v", shape.items[i], stride.items[i])
		}
		x.shape = append(x.shape, int(n))
		x.stride = append(x.stride, step)
	}
	return x, nil
}

// collect returns the tensors below the subtree of root.
func (t *torchReader) collect(root value, subtree string) (*File, error) {
	if subtree == "" {
		root = t.stateDict(root)
	} else if subtree != "." {
		v, ok := descend(root, subtree)
		if !ok {
			return nil, &UnsupportedError{"pth", fmt.Sprintf("there is no %q; the file holds %s", subtree, describe(root))}
		}
		root = v
	}
	f := &File{}
	pickled := int(t.machine.in.at - t.machine.in.start)
	t.visits, t.names = pickled+1024, 16*pickled+1024
	if err := t.walk(f, map[string]bool{}, "", root, 0); err != nil {
		return nil, err
	}
	if len(f.Tensors) == 0 {
		return nil, &UnsupportedError{"pth", fmt.Sprintf("there are no tensors; the file holds %s", describe(root))}
	}
	return f, nil
}

// stateDict returns root if it is a state dict, or the state dict that it holds
// under one of the usual keys.
func (t *torchReader) stateDict(root value) value {
	d, ok := root.(*dict)
	if !ok || t.holdsTensors(d) {
		return root
	}
	for _, key := range stateDictKeys {
		if v, ok := d.get(key); ok {
			if inner, ok := v.(*dict); ok && t.holdsTensors(inner) {
				return inner
			}
		}
	}
	return root
}

func (t *torchReader) holdsTensors(d *dict) bool {
	for _, v := range d.items {
		if _, ok := t.tensorOf(v); ok {
			return true
		}
	}
	return false
}

// descend returns the value at a path of keys separated by dots. A key may
// contain dots itself.
func descend(v value, path string) (value, bool) {
	for depth := 0; depth < maxDepth; depth++ {
		d, ok := v.(*dict)
		if !ok {
			return nil, false
		}
		if v, ok := child(d, path); ok {
			return v, true
		}
		found := false
		for i, c := range path {
			if c == '.' {
				if inner, ok := child(d, path[:i]); ok {
					v, path, found = inner, path[i+1:], true
					break
				}
			}
		}
		if !found {
			return nil, false
		}
	}
	return nil, false
}

// child looks up a key. In the file it may be an integer, as in the state of an
// optimizer.
func child(d *dict, key string) (value, bool) {
	if v, ok := d.get(key); ok {
		return v, true
	}
	if n, err := strconv.ParseInt(key, 10, 64); err == nil {
		return d.get(n)
	}
	return nil, false
}

// describe describes a value in a few words.
func describe(v value) string {
	switch v := v.(type) {
	case *dict:
		var keys []string
		for i, k := range v.keys {
			if i == 8 {
				keys = append(keys, "...")
				break
			}
			keys = append(keys, fmt.Sprintf("%.40q", fmt.Sprint(k)))
		}
		return "a dict with the keys " + strings.Join(keys, ", ")
	case *opaque:
		return fmt.Sprintf("an object of %.80q; save its state_dict() instead", v.by)
	case *storage:
		return "a storage without a shape"
	case *list, *tuple:
		return "a list"
	}
	return fmt.Sprintf("a %T", v)
}

// walk adds the tensors below v. Containers may be shared, and a list may
// contain itself, so depth, number of visited values and length of names are
// limited.
func (t *torchReader) walk(f *File, seen map[string]bool, name string, v value, depth int) error {
	if t.visits--; t.visits < 0 || depth > maxDepth {
		return pthError(-1, "containers are nested too deeply or have too many values at %.80q", name)
	}
	under := func(key string) string {
		if name == "" {
			return key
		}
		return name + "." + key
	}
	if x, ok := t.tensorOf(v); ok {
		if seen[name] {
			return pthError(-1, "two tensors are named %.80q", name)
		}
		if t.names -= len(name); t.names < 0 || len(name) > maxNameSize {
			return pthError(-1, "the names are too long at %.80q", name)
		}
		seen[name] = true
		data, err := t.read(x)
		if err != nil {
			return fmt.Errorf("%.80q: %w", name, err)
		}
		f.Tensors = append(f.Tensors, Tensor{Name: name, DType: x.dtype, Shape: append([]int{}, x.shape...), Data: data})
		return nil
	}
	switch v := v.(type) {
	case *variable:
		return &UnsupportedError{"pth", fmt.Sprintf("%.80q is a %s whose state is not a tensor", name, v.by)}
	case *dict:
		for i, k := range v.keys {
			key, ok := k.(string)
			if !ok {
				key = strconv.FormatInt(k.(int64), 10) // dict.set allows no other type
			}
			if len(name)+len(key) >= maxNameSize {
				return pthError(-1, "the name %.80q... is longer than %d bytes", under(key), maxNameSize)
			}
			if err := t.walk(f, seen, under(key), v.items[i], depth+1); err != nil {
				return err
			}
		}
	case *list:
		return t.walkItems(f, seen, under, v.items, depth)
	case *tuple:
		return t.walkItems(f, seen, under, v.items, depth)
	case *opaque:
		if strings.HasPrefix(v.by, "torch._utils._rebuild") || strings.HasPrefix(v.by, "torch._tensor._rebuild") {
			return &UnsupportedError{"pth", fmt.Sprintf("%.80q is made by %.80q: only dense tensors of plain types are read", name, v.by)}
		}
	}
	return nil
}

func (t *torchReader) walkItems(f *File, seen map[string]bool, under func(string) string, items []value, depth int) error {
	for i, v := range items {
		if err := t.walk(f, seen, under(strconv.Itoa(i)), v, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// read returns the elements of x in row-major order: a part of the bytes of its
// storage if they have that order, else a copy.
func (t *torchReader) read(x *torchTensor) ([]byte, error) {
	size := x.dtype.Size()
	n, ok := byteSize(x.dtype, x.shape)
	if !ok {
		return nil, pthError(-1, "its shape is %v", x.shape)
	}
	if n == 0 {
		return []byte{}, nil
	}
	block, err := t.block(x.storage.key)
	if err != nil {
		return nil, err
	}
	elements := int64(len(block) / size)
	first, ok := viewStart(x, int64(elementSize(x.storage.dtype)), elements)
	last := first
	contiguous, want := true, int64(1)
	for i := len(x.shape) - 1; i >= 0 && ok; i-- {
		steps := int64(x.shape[i] - 1)
		if steps == 0 {
			continue
		}
		if x.stride[i] > 0 && steps > (elements-1-last)/x.stride[i] {
			ok = false
			break
		}
		last += steps * x.stride[i]
		contiguous = contiguous && x.stride[i] == want
		want *= int64(x.shape[i]) // no overflow: byteSize has checked the product
	}
	if !ok || last >= elements {
		return nil, pthError(-1, "size %v with stride %v at %d does not lie in its storage of %d elements", x.shape, x.stride, x.offset, elements)
	}
	if contiguous {
		lo := first * int64(size)
		return block[lo : lo+int64(n) : lo+int64(n)], nil
	}
	if t.copies -= int64(n); t.copies < 0 {
		return nil, pthError(-1, "its %v elements, repeated from a storage of %d, would make the checkpoint many times as large as its file", x.shape, elements)
	}
	return gather(block, size, n, first, x.shape, x.stride), nil
}

// viewStart returns the element at which x begins; ok is false if that is past
// the end of the storage. The offset of the storage counts elements of the
// storage, the offset of the tensor elements of the tensor's type.
func viewStart(x *torchTensor, unit, elements int64) (first int64, ok bool) {
	size := int64(x.dtype.Size())
	if x.offset >= elements || x.storage.offset > math.MaxInt64/16 {
		return 0, false
	}
	if x.storage.offset*unit%size != 0 {
		return 0, false
	}
	shift := x.storage.offset * unit / size
	if shift >= elements-x.offset {
		return 0, false
	}
	return shift + x.offset, true
}

// gather copies strided elements of size bytes, in total n bytes, beginning with
// the element first.
func gather(block []byte, size, n int, first int64, shape []int, stride []int64) []byte {
	out := make([]byte, 0, n)
	index := make([]int, len(shape))
	at := first
	for len(out) < n {
		lo := at * int64(size)
		out = append(out, block[lo:lo+int64(size)]...)
		for i := len(shape) - 1; i >= 0; i-- {
			index[i]++
			at += stride[i]
			if index[i] < shape[i] {
				break
			}
			at -= int64(index[i]) * stride[i]
			index[i] = 0
		}
	}
	return out
}

// block returns the bytes of a storage, which it reads only once.
func (t *torchReader) block(key string) ([]byte, error) {
	if b, ok := t.loaded[key]; ok {
		return b, nil
	}
	b, err := t.load(key)
	if err != nil {
		return nil, err
	}
	t.loaded[key] = b
	return b, nil
}

func pthError(offset int64, format string, args ...any) error {
	return &FormatError{"pth", offset, fmt.Sprintf(format, args...)}
}

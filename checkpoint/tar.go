package checkpoint

import (
	"archive/tar"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The oldest format, from PyTorch 0.1, is a tar archive with four members.
//
//	sys_info  a pickle of the system: byte order, type sizes
//	storages  a pickle of their number; for each a pickle (key, location, type),
//	          the number of elements as int64, and the elements; a pickle of a
//	          list of views (key, key of the storage, first element, elements)
//	tensors   a pickle of their number; for each a pickle (key, key of the
//	          storage, type), the number of dimensions as int64, sizes, strides
//	          and the first element, all int64
//	pickle    the object; its persistent ids are keys of tensors and storages
//
// Keys are integers (addresses in the process that wrote the file), and all
// numbers are little endian.
//
// Source: torch/serialization.py, legacy_load within _legacy_load.

// maxMembers is the largest number of members that are read; torch.save wrote
// four.
const maxMembers = 64

// tensorTypes maps the classes of tensors in the tar format to the types of
// their elements.
var tensorTypes = func() map[string]DType {
	types := map[string]DType{}
	for name, d := range storageTypes {
		if prefix, ok := strings.CutSuffix(name, "Storage"); ok && d.Size() > 0 {
			types[prefix+"Tensor"] = d
		}
	}
	return types
}()

// readTar reads the members without the elements of storages, which load reads
// later.
func (t *torchReader) readTar(r io.ReaderAt) (value, error) {
	members, err := t.members(r)
	if err != nil {
		return nil, err
	}
	a := &tarArchive{torchReader: t, r: r, storages: map[int64]tarStorage{}, tensors: map[int64]value{}}
	t.machine.persistent = func(value) (value, error) {
		return nil, t.machine.in.fail("a persistent id where none is allowed")
	}
	if m, ok := members["sys_info"]; ok {
		if err := a.readSystem(m); err != nil {
			return nil, err
		}
	}
	if err := a.readStorages(members["storages"]); err != nil {
		return nil, fmt.Errorf("storages: %w", err)
	}
	if err := a.readTensors(members["tensors"]); err != nil {
		return nil, fmt.Errorf("tensors: %w", err)
	}
	t.load = a.load
	t.machine.persistent = a.persistentID
	return a.run(members["pickle"])
}

// members returns the places of the data of the archive's members. It returns
// an error if a member that torch.load needs is missing.
func (t *torchReader) members(r io.ReaderAt) (map[string]place, error) {
	section := io.NewSectionReader(r, 0, t.size)
	archive := tar.NewReader(section)
	places := map[string]place{}
	var names []string
	for range maxMembers {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			at, _ := section.Seek(0, io.SeekCurrent)
			return nil, pthError(at, "the tar archive: %v", err)
		}
		if names = append(names, fmt.Sprintf("%.40q", h.Name)); len(names) > 4 {
			names[4], names = "...", names[:5]
		}
		switch h.Name {
		case "sys_info", "storages", "tensors", "pickle":
		default:
			continue
		}
		// The reader is just after the header, because it does not read ahead.
		at, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		_, twice := places[h.Name]
		if h.Typeflag != tar.TypeReg || twice || h.Size > t.size-at {
			return nil, pthError(at, "the tar archive: %s is not a file, occurs twice or is longer than the %d bytes that are left", h.Name, t.size-at)
		}
		places[h.Name] = place{at, at + h.Size}
	}
	for _, name := range []string{"storages", "tensors", "pickle"} {
		if _, ok := places[name]; !ok {
			return nil, &KindError{fmt.Sprintf("a tar archive without torch.save's %s; it holds %s", name, strings.Join(names, ", "))}
		}
	}
	return places, nil
}

// A tarArchive holds what was read from a tar archive.
type tarArchive struct {
	*torchReader
	r        io.ReaderAt
	storages map[int64]tarStorage
	tensors  map[int64]value // *torchTensor, or *opaque if its type is not supported
}

// A tarStorage is a storage in the file, or a view of one.
type tarStorage struct {
	dtype DType
	name  string
	root  int64 // the storage of which it is a view, or itself
	place       // in the file
}

// run reads the first pickle of m.
func (a *tarArchive) run(m place) (value, error) {
	a.machine.in = newPickleReader(a.r, m.lo, min(m.hi, m.lo+maxPickleBytes))
	return a.machine.run()
}

func (a *tarArchive) readSystem(m place) error {
	info, err := a.run(m)
	if err != nil {
		return fmt.Errorf("sys_info: %w", err)
	}
	if d, ok := info.(*dict); ok {
		if little, ok := d.get("little_endian"); ok && little == value(false) {
			return &UnsupportedError{"pth", "the file was written on a big-endian machine; save it on a little-endian one"}
		}
	}
	return nil
}

// begin opens a member that begins with a count. No memory is allocated for the
// count: records are read one by one.
func (a *tarArchive) begin(m place) (int64, error) {
	a.machine.in = newPickleReader(a.r, m.lo, m.hi)
	v, err := a.machine.run()
	if err != nil {
		return 0, err
	}
	n, ok := v.(int64)
	if !ok || n < 0 {
		return 0, a.machine.in.fail("wanted a count, found %s", describe(v))
	}
	return n, nil
}

// triple reads a pickle (key, middle, type).
func (a *tarArchive) triple() (key int64, middle value, class *global, err error) {
	v, err := a.machine.run()
	if err != nil {
		return 0, nil, nil, err
	}
	if p, ok := v.(*tuple); ok && len(p.items) == 3 {
		key, ok1 := p.items[0].(int64)
		class, ok2 := p.items[2].(*global)
		_, storage := a.storages[key]
		_, tensor := a.tensors[key]
		if ok1 && ok2 && !storage && !tensor {
			return key, p.items[1], class, nil
		}
	}
	return 0, nil, nil, a.machine.in.fail("wanted a new key, a value and a type, found %s", describe(v))
}

func (a *tarArchive) readStorages(m place) error {
	n, err := a.begin(m)
	if err != nil {
		return err
	}
	in := a.machine.in
	for range n {
		key, _, class, err := a.triple()
		if err != nil {
			return err
		}
		dtype := storageTypes[class.name]
		size := int64(elementSize(dtype))
		if size == 0 || !strings.HasPrefix(class.module, "torch") {
			return &UnsupportedError{"pth", fmt.Sprintf("a storage of type %.40q", class.module+"."+class.name)}
		}
		count, err := in.uint(8)
		if err != nil {
			return err
		}
		if left := in.limit - in.at; count > uint64(left/size) {
			return in.fail("storage %d has %d elements of %d bytes, %d bytes are left", key, count, size, left)
		}
		bytes := int64(count) * size
		a.storages[key] = tarStorage{dtype, class.module + "." + class.name, key, place{in.at, in.at + bytes}}
		in.skip(bytes)
	}
	views, err := a.machine.run()
	if err != nil {
		return err
	}
	list, ok := views.(*list)
	if !ok {
		return in.fail("wanted the list of views, found %s", describe(views))
	}
	for _, v := range list.items {
		if err := a.addView(v); err != nil {
			return err
		}
	}
	return nil
}

// addView adds (key, key of the storage, first element, elements).
func (a *tarArchive) addView(v value) error {
	in := a.machine.in
	var n [4]int64
	p, ok := v.(*tuple)
	if !ok || len(p.items) != len(n) {
		return in.fail("wanted a view of a storage, found %s", describe(v))
	}
	for i, item := range p.items {
		if n[i], ok = item.(int64); !ok {
			return in.fail("wanted a view of a storage, found %s in it", describe(item))
		}
	}
	key, root, first, count := n[0], n[1], n[2], n[3]
	s, ok := a.storages[root]
	if _, twice := a.storages[key]; !ok || twice {
		return in.fail("a view %d of storage %d: the view exists already or the storage does not exist", key, root)
	}
	size := int64(elementSize(s.dtype))
	elements := (s.hi - s.lo) / size
	if first < 0 || count < 0 || first > elements || count > elements-first {
		return in.fail("a view of %d elements at %d does not lie in its storage of %d", count, first, elements)
	}
	lo := s.lo + first*size
	a.storages[key] = tarStorage{s.dtype, s.name, s.root, place{lo, lo + count*size}}
	return nil
}

func (a *tarArchive) readTensors(m place) error {
	n, err := a.begin(m)
	if err != nil {
		return err
	}
	in := a.machine.in
	for range n {
		key, storage, class, err := a.triple()
		if err != nil {
			return err
		}
		dimensions, err := in.uint(4)
		if err != nil {
			return err
		}
		if dimensions > maxShape {
			return in.fail("a tensor of %d dimensions", int32(dimensions))
		}
		if _, err := in.uint(4); err != nil { // the upper half, which torch.load ignores too
			return err
		}
		numbers := make([]value, 2*dimensions+1) // sizes, strides, first element
		for i := range numbers {
			v, err := in.uint(8)
			if err != nil {
				return err
			}
			numbers[i] = int64(v)
		}
		size, stride, first := &tuple{numbers[:dimensions]}, &tuple{numbers[dimensions : 2*dimensions]}, numbers[2*dimensions]
		if a.tensors[key], err = a.tensor(storage, class, first, size, stride); err != nil {
			return err
		}
	}
	return nil
}

// tensor makes a tensor. In PyTorch 0.1, which has no scalars, a tensor without
// dimensions is empty. Like torch.load today, this makes it a scalar if the
// storage has an element.
func (a *tarArchive) tensor(key value, class *global, first value, size, stride *tuple) (value, error) {
	in := a.machine.in
	var s *storage
	empty := true
	switch key := key.(type) {
	case nil:
		s = &storage{key: "none", dtype: tensorTypes[class.name], name: class.module + "." + class.name}
	case int64:
		at, ok := a.storages[key]
		if !ok {
			return nil, in.fail("a tensor on storage %d, which does not exist", key)
		}
		s = &storage{key: strconv.FormatInt(key, 10), dtype: at.dtype, name: at.name}
		empty = at.lo == at.hi
	default:
		return nil, in.fail("a tensor on %s", describe(key))
	}
	if empty && len(size.items) == 0 {
		none := &tuple{[]value{int64(0)}}
		size, stride = none, none
	}
	return a.newTensor([]value{s, first, size, stride}, nil)
}

// persistentID returns the value of a persistent id: the decimal digits of the
// key of a tensor or storage, or the class of a module with its source.
func (a *tarArchive) persistentID(id value) (value, error) {
	in := a.machine.in
	var key int64
	switch id := id.(type) {
	case int64:
		key = id
	case string:
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil {
			return nil, in.fail("a persistent id %.40q", id)
		}
		key = n
	case *tuple:
		if len(id.items) > 0 {
			if class, ok := id.items[0].(*global); ok {
				return class, nil
			}
		}
		return nil, in.fail("a persistent id that is not a class")
	default:
		return nil, in.fail("a persistent id that is %s", describe(id))
	}
	if x, ok := a.tensors[key]; ok {
		return x, nil
	}
	if s, ok := a.storages[key]; ok {
		return &storage{key: strconv.FormatInt(key, 10), dtype: s.dtype, name: s.name}, nil
	}
	return nil, in.fail("there is no tensor or storage %d", key)
}

// load returns the bytes of a storage. A view is a part of the bytes of its
// storage, which is read only once.
func (a *tarArchive) load(key string) ([]byte, error) {
	n, err := strconv.ParseInt(key, 10, 64)
	s, ok := a.storages[n]
	if err != nil || !ok {
		return nil, pthError(-1, "storage %.40q is missing", key)
	}
	if s.root == n {
		return readPlace(a.r, s.place, key)
	}
	root := a.storages[s.root]
	block, err := a.block(strconv.FormatInt(s.root, 10))
	if err != nil {
		return nil, err
	}
	return block[s.lo-root.lo : s.hi-root.lo : s.hi-root.lo], nil
}

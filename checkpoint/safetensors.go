package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
)

// maxHeader bounds the JSON header, as the reference implementation does
// (safetensors 0.4, MAX_HEADER_SIZE).
const maxHeader = 100_000_000

type headerEntry struct {
	DType   DType    `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// OpenSafetensors reads the file at path; see ReadSafetensors.
func OpenSafetensors(path string) (*File, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := ReadSafetensors(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// ReadSafetensors reads a safetensors stream to its end. Tensors come back in
// the order of their data.
//
// Source: https://huggingface.co/docs/safetensors, "Format".
func ReadSafetensors(r io.Reader) (*File, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if len(b) < 8 {
		return nil, fmt.Errorf("checkpoint: safetensors: %d bytes, wanted at least 8", len(b))
	}
	n := binary.LittleEndian.Uint64(b)
	if n > maxHeader || n > uint64(len(b)-8) {
		return nil, fmt.Errorf("checkpoint: safetensors: header of %d bytes in a file of %d", n, len(b))
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &raw); err != nil {
		return nil, fmt.Errorf("checkpoint: safetensors: header: %w", err)
	}
	data := b[8+n:]
	f := &File{}
	starts := map[string]int64{}
	for name, msg := range raw {
		if name == "__metadata__" {
			if err := json.Unmarshal(msg, &f.Metadata); err != nil {
				return nil, fmt.Errorf("checkpoint: safetensors: metadata: %w", err)
			}
			continue
		}
		var e headerEntry
		if err := json.Unmarshal(msg, &e); err != nil {
			return nil, fmt.Errorf("checkpoint: safetensors: %q: %w", name, err)
		}
		lo, hi := e.Offsets[0], e.Offsets[1]
		if lo < 0 || hi < lo || hi > int64(len(data)) {
			return nil, fmt.Errorf("checkpoint: safetensors: %q lies at [%d, %d) of %d bytes", name, lo, hi, len(data))
		}
		t := Tensor{Name: name, DType: e.DType, Shape: e.Shape, Data: data[lo:hi:hi]}
		if err := t.check(); err != nil {
			return nil, err
		}
		starts[name] = lo
		f.Tensors = append(f.Tensors, t)
	}
	sort.Slice(f.Tensors, func(i, j int) bool {
		a, b := f.Tensors[i].Name, f.Tensors[j].Name
		if starts[a] != starts[b] {
			return starts[a] < starts[b]
		}
		return a < b
	})
	return f, nil
}

// WriteSafetensors writes f with its tensors in the given order; the header is
// padded with spaces so that the data starts at a multiple of eight bytes.
func WriteSafetensors(w io.Writer, f *File) error {
	var h bytes.Buffer
	h.WriteByte('{')
	sep := ""
	if len(f.Metadata) > 0 {
		m, err := json.Marshal(f.Metadata)
		if err != nil {
			return err
		}
		fmt.Fprintf(&h, `"__metadata__":%s`, m)
		sep = ","
	}
	var off int64
	for _, t := range f.Tensors {
		if err := t.check(); err != nil {
			return err
		}
		name, err := json.Marshal(t.Name)
		if err != nil {
			return err
		}
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		e, err := json.Marshal(headerEntry{t.DType, shape, [2]int64{off, off + int64(len(t.Data))}})
		if err != nil {
			return err
		}
		fmt.Fprintf(&h, "%s%s:%s", sep, name, e)
		sep = ","
		off += int64(len(t.Data))
	}
	h.WriteByte('}')
	for h.Len()%8 != 0 {
		h.WriteByte(' ')
	}
	if err := binary.Write(w, binary.LittleEndian, uint64(h.Len())); err != nil {
		return err
	}
	if _, err := w.Write(h.Bytes()); err != nil {
		return err
	}
	for _, t := range f.Tensors {
		if _, err := w.Write(t.Data); err != nil {
			return err
		}
	}
	return nil
}

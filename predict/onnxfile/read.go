package onnxfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hcunet/hcunet/predict"
	"google.golang.org/protobuf/encoding/protowire"
)

// maxEntry is the largest size in bytes of a metadata entry that is read.
const maxEntry = 1 << 24

// readModel reads the description of the model from the metadata of a file and skips
// everything else.
func readModel(f io.ReadSeeker, path string) (*predict.Model, bool, error) {
	entries, err := metadata(f)
	if err != nil {
		return nil, false, fmt.Errorf("onnxfile: %s: no ONNX file, or a damaged one: %w", path, err)
	}
	switch {
	case entries[formatKey] != format:
		return nil, false, fmt.Errorf("onnxfile: %s: an ONNX file, but of another program: wanted one that examples/export has written", path)
	case entries[versionKey] != version:
		return nil, false, fmt.Errorf("onnxfile: %s: a model of version %q; this program reads version %s: export it anew", path, entries[versionKey], version)
	}
	m := &predict.Model{}
	if err := predict.ParseModel([]byte(entries[modelKey]), m); err != nil {
		return nil, false, fmt.Errorf("onnxfile: %s: %w", path, err)
	}
	m.Digest = entries[digestKey]
	return m, entries[inputKey] == "uint8", nil
}

// metadata returns the metadata of a file by key.
func metadata(f io.ReadSeeker) (map[string]string, error) {
	entries := map[string]string{}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r := bufio.NewReader(f)
	for {
		tag, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		field, kind := protowire.DecodeTag(tag)
		if field < protowire.MinValidNumber {
			return nil, fmt.Errorf("field %d", field)
		}
		switch kind {
		case protowire.VarintType:
			_, err = binary.ReadUvarint(r)
		case protowire.BytesType:
			var size uint64
			if size, err = binary.ReadUvarint(r); err != nil {
				break
			}
			if field == modelMetadata && size <= maxEntry {
				err = entry(r, int64(size), entries)
				break
			}
			var at int64 // position in the file; f itself is ahead by what the buffer holds
			if at, err = f.Seek(0, io.SeekCurrent); err != nil {
				break
			}
			at -= int64(r.Buffered())
			if size > uint64(end-at) {
				return nil, fmt.Errorf("field %d of %d bytes, where %d are left", field, size, end-at)
			}
			_, err = f.Seek(at+int64(size), io.SeekStart)
			r.Reset(f)
		default:
			return nil, fmt.Errorf("field %d of type %d", field, kind)
		}
		if err != nil {
			return nil, err
		}
	}
}

// entry reads one metadata entry of size bytes and adds it to to.
func entry(r io.Reader, size int64, to map[string]string) error {
	b, err := io.ReadAll(io.LimitReader(r, size))
	if err != nil {
		return err
	}
	if int64(len(b)) < size {
		return io.ErrUnexpectedEOF
	}
	var pair [2]string
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if field == entryKey || field == entryValue {
			if kind != protowire.BytesType {
				return fmt.Errorf("an entry of the metadata of type %d", kind)
			}
			s, n := protowire.ConsumeString(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			pair[field-entryKey] = s
			b = b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	to[pair[0]] = pair[1]
	return nil
}

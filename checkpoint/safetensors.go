package checkpoint

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/hcunet/hcunet/internal/atomicfile"
)

// maxHeader is the largest JSON header, as in the reference implementation
// (safetensors 0.4, MAX_HEADER_SIZE).
const maxHeader = 100_000_000

const metadataKey = "__metadata__"

// digestKey is the metadata entry for the digest of a file written here: the
// SHA-256 of all its bytes, with zeros in place of the 64 digits of the digest.
const digestKey = "hcunet_sha256"

const digestDigits = 2 * sha256.Size

// maxShape is the largest number of dimensions of a tensor, which is also
// PyTorch's limit.
const maxShape = 64

// OpenSafetensors reads the file at path; see ReadSafetensors.
func OpenSafetensors(path string) (*File, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	st, err := r.Stat()
	if err != nil {
		return nil, err
	}
	size := int64(-1)
	if st.Mode().IsRegular() {
		size = st.Size()
	}
	f, err := readSafetensors(r, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// ReadSafetensors reads a safetensors stream to its end. Tensors have the order of the
// header. They share one block of memory, in which each starts at its offset in the data
// of the file. A file that was written here contains its digest; if any byte has changed,
// ReadSafetensors returns a *DigestError. The digest is returned as File.Digest and is
// not in Metadata. As in the reference implementation, these are errors (*FormatError): a
// header that is not a JSON object in UTF-8 or has a name twice; data with holes,
// overlaps or bytes that belong to no tensor; a size that does not match shape and type.
// Element types that safetensors has and DType does not are an *UnsupportedError.
//
// Source: https://huggingface.co/docs/safetensors, "Format".
func ReadSafetensors(r io.Reader) (*File, error) {
	size := int64(-1)
	if m, ok := r.(interface{ Len() int }); ok { // such as bytes.Reader
		size = int64(m.Len())
	}
	return readSafetensors(r, size)
}

// readSafetensors reads a stream of size bytes, -1 if that is not known.
func readSafetensors(r io.Reader, size int64) (*File, error) {
	head, err := io.ReadAll(io.LimitReader(r, headSize))
	if err != nil {
		return nil, err
	}
	if len(head) < 8 {
		return nil, safetensorsError(-1, "%d bytes, wanted at least 8", len(head))
	}
	if !isSafetensors(head) {
		if isZip(head) || isTar(head) || isTorchPickle(head) {
			return nil, &KindError{"a file of torch.save, which Open and OpenTorch read"}
		}
		if kind := otherKind(head); kind != nil {
			return nil, kind
		}
	}
	r = io.MultiReader(bytes.NewReader(head[8:]), r)
	n := binary.LittleEndian.Uint64(head)
	if n > maxHeader {
		if len(head) > 8 && head[8] != '{' {
			return nil, unknownKind(head)
		}
		return nil, safetensorsError(0, "a header of %d bytes, wanted at most %d", n, maxHeader)
	}
	rest := int64(-1)
	if size >= 0 {
		if rest = size - 8 - int64(n); rest < 0 {
			return nil, safetensorsError(0, "a header of %d bytes in a file of %d", n, size)
		}
	}
	header, err := readBytes(r, int64(n), size >= 0)
	if err != nil {
		return nil, readError(err, "a header of %d bytes, but the file ends before its end", n)
	}
	f, places, err := parseHeader(header)
	if err != nil {
		return nil, err
	}
	total, err := checkPlaces(f.Tensors, places)
	if err != nil {
		return nil, err
	}
	if rest >= 0 && total != rest {
		return nil, safetensorsError(-1, "the tensors take %d bytes, the file has %d for them", total, rest)
	}
	data, err := readBytes(r, total, rest >= 0)
	if err != nil {
		return nil, readError(err, "the tensors take %d bytes, but the file ends before their end", total)
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n > 0 {
		return nil, safetensorsError(-1, "bytes after the last tensor")
	} else if err != io.EOF {
		return nil, err
	}
	for i, p := range places {
		f.Tensors[i].Data = data[p.lo:p.hi:p.hi]
	}
	if err := f.verify(header, data); err != nil {
		return nil, err
	}
	return f, nil
}

// A DigestError says that a file has changed since it was written: the SHA-256
// of its bytes differs from the one that it contains.
type DigestError struct {
	Want, Got string // 64 hexadecimal digits
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("checkpoint: safetensors: the file is damaged, or another program changed it and kept the entry %q: it contains the SHA-256 %s, but its SHA-256 is %s", digestKey, e.Want, e.Got)
}

// verify checks the digest in the metadata, if there is one, and moves it to
// f.Digest.
func (f *File) verify(header, data []byte) error {
	want, ok := f.Metadata[digestKey]
	if !ok {
		return nil
	}
	if len(want) != digestDigits || bytes.Count(header, []byte(want)) != 1 {
		return safetensorsError(-1, "the metadata's %s is %.80q, wanted %d hexadecimal digits that occur nowhere else in the header", digestKey, want, digestDigits)
	}
	zeroed := bytes.Replace(header, []byte(want), bytes.Repeat([]byte{'0'}, digestDigits), 1)
	if got := digest(zeroed, data); got != want {
		return &DigestError{want, got}
	}
	if delete(f.Metadata, digestKey); len(f.Metadata) == 0 {
		f.Metadata = nil
	}
	f.Digest = want
	return nil
}

// digest returns the SHA-256 of a file: of its length prefix, its header with
// zeros in place of the digest, and its data.
func digest(header []byte, data ...[]byte) string {
	h := sha256.New()
	var prefix [8]byte
	binary.LittleEndian.PutUint64(prefix[:], uint64(len(header)))
	h.Write(prefix[:])
	h.Write(header)
	for _, b := range data {
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// A place is the position of the data of a tensor, bytes [lo, hi) after the
// header.
type place struct{ lo, hi int64 }

// parseHeader reads the JSON header. It returns the tensors without data, in
// the order of the header, and their places.
func parseHeader(header []byte) (*File, []place, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, safetensorsError(8, "the header does not begin with {")
	}
	if !utf8.Valid(header) {
		return nil, nil, safetensorsError(8, "the header is not UTF-8")
	}
	p := headerParser{json.NewDecoder(bytes.NewReader(header))}
	p.UseNumber()
	f := &File{}
	var places []place
	seen := map[string]bool{}
	err := p.object(func(name string) error {
		if seen[name] {
			return p.fail("%q occurs twice", name)
		}
		seen[name] = true
		if name == metadataKey {
			return p.metadata(f)
		}
		t, at, err := p.tensor(name)
		f.Tensors = append(f.Tensors, t)
		places = append(places, at)
		return err
	})
	if err == nil {
		if _, more := p.Token(); more != io.EOF {
			err = p.fail("something follows the object")
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return f, places, nil
}

type headerParser struct{ *json.Decoder }

func (p headerParser) fail(format string, args ...any) error {
	return safetensorsError(8+p.InputOffset(), "header: "+format, args...)
}

// token returns the next token. If want is not 0, the token must be that
// delimiter.
func (p headerParser) token(want json.Delim) (json.Token, error) {
	t, err := p.Token()
	if err != nil {
		return nil, p.fail("%v", err)
	}
	if d, ok := t.(json.Delim); want != 0 && (!ok || d != want) {
		return nil, p.fail("wanted %v, found %v", want, t)
	}
	return t, nil
}

// object reads an object. It calls member for each name to read the value that
// follows.
func (p headerParser) object(member func(name string) error) error {
	if _, err := p.token('{'); err != nil {
		return err
	}
	for p.More() {
		name, err := p.token(0)
		if err != nil {
			return err
		}
		if err := member(name.(string)); err != nil { // the decoder allows only strings as names
			return err
		}
	}
	_, err := p.token('}')
	return err
}

func (p headerParser) metadata(f *File) error {
	f.Metadata = map[string]string{}
	return p.object(func(name string) error {
		if _, twice := f.Metadata[name]; twice {
			return p.fail("%s: %q occurs twice", metadataKey, name)
		}
		v, err := p.token(0)
		if err != nil {
			return err
		}
		s, ok := v.(string)
		if !ok {
			return p.fail("%s: %q is not a string", metadataKey, name)
		}
		f.Metadata[name] = s
		return nil
	})
}

func (p headerParser) tensor(name string) (Tensor, place, error) {
	t := Tensor{Name: name}
	var at place
	seen := map[string]bool{}
	err := p.object(func(field string) error {
		if seen[field] {
			return p.fail("%q: %s occurs twice", name, field)
		}
		switch field {
		case "dtype":
			v, err := p.token(0)
			if err != nil {
				return err
			}
			s, ok := v.(string)
			if !ok {
				return p.fail("%q: the dtype is not a string", name)
			}
			if t.DType = DType(s); t.DType.Size() == 0 {
				return &UnsupportedError{"safetensors", fmt.Sprintf("%q has element type %q", name, s)}
			}
		case "shape":
			shape, err := p.numbers(name, maxShape)
			if err != nil {
				return err
			}
			t.Shape = make([]int, len(shape))
			for i, v := range shape {
				t.Shape[i] = int(v)
			}
		case "data_offsets":
			o, err := p.numbers(name, 2)
			if err != nil {
				return err
			}
			if len(o) != 2 {
				return p.fail("%q: %d data_offsets, wanted 2", name, len(o))
			}
			at = place{o[0], o[1]}
		default: // the reference implementation ignores other fields
			var skipped json.RawMessage
			if err := p.Decode(&skipped); err != nil {
				return p.fail("%v", err)
			}
			return nil
		}
		seen[field] = true
		return nil
	})
	if err == nil && len(seen) != 3 {
		err = p.fail("%q lacks one of dtype, shape and data_offsets", name)
	}
	return t, at, err
}

// numbers reads an array of at most limit integers that are not negative.
func (p headerParser) numbers(name string, limit int) ([]int64, error) {
	if _, err := p.token('['); err != nil {
		return nil, err
	}
	var out []int64
	for p.More() {
		v, err := p.token(0)
		if err != nil {
			return nil, err
		}
		s, _ := v.(json.Number)
		n, err := strconv.ParseInt(s.String(), 10, strconv.IntSize)
		if err != nil || n < 0 || s[0] == '-' {
			return nil, p.fail("%q: %v is not a size", name, v)
		}
		if len(out) == limit {
			return nil, p.fail("%q: more than %d sizes", name, limit)
		}
		out = append(out, n)
	}
	_, err := p.token(']')
	return out, err
}

// checkPlaces returns the number of bytes of all tensors. It returns an error
// unless the tensors follow each other without gaps and each has the size that
// its shape and type give.
func checkPlaces(tensors []Tensor, places []place) (int64, error) {
	order := make([]int, len(places))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := places[i], places[j]
		return cmp.Or(cmp.Compare(a.lo, b.lo), cmp.Compare(a.hi, b.hi))
	})
	end := int64(0)
	for _, i := range order {
		t, p := tensors[i], places[i]
		if p.lo != end || p.hi < p.lo {
			return 0, safetensorsError(-1, "%q lies at [%d, %d), wanted a start at %d and no holes, overlaps or negative lengths", t.Name, p.lo, p.hi, end)
		}
		n, ok := byteSize(t.DType, t.Shape)
		if !ok || int64(n) != p.hi-p.lo {
			return 0, safetensorsError(-1, "%q: shape %v of %s does not take the %d bytes at [%d, %d)", t.Name, t.Shape, t.DType, p.hi-p.lo, p.lo, p.hi)
		}
		end = p.hi
	}
	return end, nil
}

// readBytes reads exactly n bytes. If it is not known that the stream has them,
// it allocates memory only as bytes arrive.
func readBytes(r io.Reader, n int64, known bool) ([]byte, error) {
	const piece = 1 << 20
	if n > math.MaxInt {
		return nil, io.ErrUnexpectedEOF
	}
	if known || n <= piece {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	var b []byte
	for int64(len(b)) < n {
		// Double what has arrived.
		next := min(max(2*int64(len(b)), piece), n)
		grown := make([]byte, next)
		copy(grown, b)
		if _, err := io.ReadFull(r, grown[len(b):]); err != nil {
			return nil, err
		}
		b = grown
	}
	return b, nil
}

func safetensorsError(offset int64, format string, args ...any) error {
	return &FormatError{"safetensors", offset, fmt.Sprintf(format, args...)}
}

// readError returns an error of the reader as it is, and turns an early end of
// the stream into a *FormatError.
func readError(err error, format string, args ...any) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return safetensorsError(-1, format, args...)
	}
	return err
}

// SaveSafetensors writes f to path, completely or not at all: it writes a
// temporary file in the same folder, syncs it and renames it. See
// WriteSafetensors.
func SaveSafetensors(path string, f *File) error {
	return atomicfile.Write(path, func(w io.Writer) error { return WriteSafetensors(w, f) })
}

// WriteSafetensors writes f, with a digest that ReadSafetensors checks. Equal
// files give equal bytes. The header lists the tensors in the given order. Their
// data is sorted by falling element size and begins at a multiple of eight bytes,
// so that every element is aligned in a mapped file. Before anything is written,
// it returns an error if a name is used twice, is not UTF-8 or is "__metadata__",
// or if a shape does not match its data.
func WriteSafetensors(w io.Writer, f *File) error {
	header, order, err := layOut(f)
	if err != nil {
		return err
	}
	blocks := make([][]byte, len(order))
	for k, i := range order {
		blocks[k] = f.Tensors[i].Data
	}
	// The metadata comes first in the header, and the digest first in the
	// metadata.
	zeros := bytes.Repeat([]byte{'0'}, digestDigits)
	copy(header[bytes.Index(header, zeros):], digest(header, blocks...))

	var prefix [8]byte
	binary.LittleEndian.PutUint64(prefix[:], uint64(len(header)))
	if _, err := w.Write(prefix[:]); err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, b := range blocks {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// layOut returns the padded header and the order in which the data is written.
func layOut(f *File) (header []byte, order []int, err error) {
	seen := map[string]bool{metadataKey: true}
	for i, t := range f.Tensors {
		if err := t.check(); err != nil {
			return nil, nil, err
		}
		if seen[t.Name] || !utf8.ValidString(t.Name) {
			return nil, nil, fmt.Errorf("checkpoint: tensor %d cannot be named %q: the name is taken or not UTF-8", i, t.Name)
		}
		if len(t.Shape) > maxShape {
			return nil, nil, fmt.Errorf("checkpoint: %q has %d dimensions, at most %d can be read back", t.Name, len(t.Shape), maxShape)
		}
		seen[t.Name] = true
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return f.Tensors[j].DType.Size() - f.Tensors[i].DType.Size()
	})
	places := make([]place, len(order))
	end := int64(0)
	for _, i := range order {
		places[i] = place{end, end + int64(len(f.Tensors[i].Data))}
		end = places[i].hi
	}
	var h bytes.Buffer
	fmt.Fprintf(&h, `{%q:{%q:"%0*d"`, metadataKey, digestKey, digestDigits, 0)
	for _, k := range slices.Sorted(maps.Keys(f.Metadata)) {
		v := f.Metadata[k]
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return nil, nil, fmt.Errorf("checkpoint: the metadata %q = %q is not UTF-8", k, v)
		}
		if k == digestKey {
			return nil, nil, fmt.Errorf("checkpoint: the metadata cannot hold %q, which is the name of the digest", k)
		}
		key, err := json.Marshal(k)
		if err != nil {
			return nil, nil, err
		}
		value, err := json.Marshal(v)
		if err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(&h, ",%s:%s", key, value)
	}
	h.WriteByte('}')
	for i, t := range f.Tensors {
		name, err := json.Marshal(t.Name)
		if err != nil {
			return nil, nil, err
		}
		shape, err := json.Marshal(append([]int{}, t.Shape...)) // [] for a scalar, not null
		if err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(&h, `,%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, name, t.DType, shape, places[i].lo, places[i].hi)
	}
	h.WriteByte('}')
	for h.Len()%8 != 0 {
		h.WriteByte(' ')
	}
	if h.Len() > maxHeader {
		return nil, nil, fmt.Errorf("checkpoint: a safetensors header of %d bytes, at most %d can be read back", h.Len(), maxHeader)
	}
	return h.Bytes(), order, nil
}

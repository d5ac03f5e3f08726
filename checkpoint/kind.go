package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf8"
)

// A KindError says that a file is of a kind that this package does not read.
type KindError struct {
	Kind string // "a PNG image"
}

func (e *KindError) Error() string {
	return fmt.Sprintf("checkpoint: this is %s; wanted safetensors or a file of torch.save", e.Kind)
}

// headSize is the number of bytes that are needed to recognize the kind of a
// file: a tar archive has its mark at 257.
const headSize = 512

// readHead returns the first bytes of a file, at least one.
func readHead(r io.ReaderAt) ([]byte, error) {
	head := make([]byte, headSize)
	n, err := r.ReadAt(head, 0)
	if n > 0 {
		return head[:n], nil
	}
	if err == io.EOF {
		return nil, &KindError{"an empty file"}
	}
	return nil, err
}

func isZip(head []byte) bool { return bytes.HasPrefix(head, []byte("PK\x03\x04")) }

func isTar(head []byte) bool {
	return len(head) > 262 && string(head[257:262]) == "ustar"
}

// isTorchPickle reports whether the file begins with the pickled magic number of
// the old format, after the protocol and, since protocol 4, a frame.
func isTorchPickle(head []byte) bool {
	i := bytes.Index(head, []byte(magicNumber))
	return head[0] == 0x80 && 0 < i && i < 20
}

// isSafetensors reports whether the file can be safetensors: it has a length
// and the first byte of a JSON object.
func isSafetensors(head []byte) bool {
	return len(head) > 8 && binary.LittleEndian.Uint64(head) <= maxHeader && head[8] == '{'
}

// marks are the first bytes of kinds of files that a user may give by mistake,
// through a wrong path or a wrong download.
var marks = []struct {
	at   int
	mark string
	kind string
}{
	{0, "\x89PNG\r\n\x1a\n", "a PNG image"},
	{0, "\xff\xd8\xff", "a JPEG image"},
	{0, "GIF8", "a GIF image"},
	{0, "BM", "a BMP image"},
	{0, "II*\x00", "a TIFF image"},
	{0, "MM\x00*", "a TIFF image"},
	{8, "WEBP", "a WebP image"},
	{128, "DICM", "a DICOM file"},
	{0, "\x1f\x8b", "gzip; unpack it first"},
	{0, "BZh", "bzip2; unpack it first"},
	{0, "\xfd7zXZ\x00", "xz; unpack it first"},
	{0, "\x28\xb5\x2f\xfd", "zstandard; unpack it first"},
	{0, "7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"},
	{0, "Rar!\x1a\x07", "a RAR archive; unpack it first"},
	{0, "PK\x05\x06", "an empty zip archive"},
	{0, "%PDF-", "a PDF document"},
	{0, "\x89HDF\r\n\x1a\n", "HDF5, which Keras writes"},
	{0, "\x93NUMPY", "an array of NumPy's (.npy)"},
	{4, "TFL3", "a TensorFlow Lite model"},
	{0, "GGUF", "GGUF, which llama.cpp reads"},
	{0, "\x7fELF", "a program (ELF)"},
	{0, "version https://git-lfs.github.com/spec/", "a pointer of Git LFS, not the file itself; run git lfs pull"},
}

// otherKind returns a *KindError for a file that is not a checkpoint, nil if its
// kind is not known.
func otherKind(head []byte) error {
	for _, m := range marks {
		if len(head) > m.at && bytes.HasPrefix(head[m.at:], []byte(m.mark)) {
			return &KindError{m.kind}
		}
	}
	text := bytes.ToLower(bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n"))
	switch {
	case bytes.HasPrefix(text, []byte("<!doctype html")), bytes.HasPrefix(text, []byte("<html")):
		return &KindError{"an HTML page, perhaps a server's message in place of the file; download it again"}
	case bytes.HasPrefix(text, []byte("<?xml")):
		return &KindError{"XML"}
	case head[0] == 0x80 && len(head) > 1 && head[1] <= 5:
		return &KindError{"a Python pickle, but not one of torch.save"}
	case isProtobuf(head):
		return &KindError{"an ONNX model or another protobuf message"}
	case isText(head):
		return &KindError{fmt.Sprintf("text that begins with %.30q", head)}
	}
	return nil
}

// unknownKind returns otherKind, or an error with the first bytes of the file.
func unknownKind(head []byte) error {
	if err := otherKind(head); err != nil {
		return err
	}
	return &KindError{fmt.Sprintf("a file of unknown kind that begins with % x", head[:min(len(head), 12)])}
}

// isProtobuf recognizes an ONNX file by its first field, the version of the
// format, and the tag of one of the next fields of a ModelProto.
//
// Source: onnx/onnx.proto3, ModelProto.
func isProtobuf(head []byte) bool {
	return len(head) > 2 && head[0] == 1<<3 && 0 < head[1] && head[1] < 32 && head[2]>>3 <= 25 &&
		(head[2]&7 == 2 || head[2]&7 == 0)
}

// isText reports whether the bytes are UTF-8 without control characters. The
// last character may be cut if the file is longer.
func isText(head []byte) bool {
	for i := 0; i < len(head); {
		c, n := utf8.DecodeRune(head[i:])
		cut := len(head) == headSize && i+utf8.UTFMax > headSize
		if c == utf8.RuneError && n == 1 && !cut || c < ' ' && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
		i += n
	}
	return true
}

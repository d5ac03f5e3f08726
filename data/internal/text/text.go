// Package text opens text files that may be gzipped and may begin with a
// byte-order mark. If a file is not text, the error says what it is.
package text

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
)

// MaxBytes is the largest size of a file after unpacking.
const MaxBytes = 1 << 30

// ErrUTF16 is the error for a text in UTF-16.
var ErrUTF16 = errors.New("the text is UTF-16; save it as UTF-8")

// errBinary is the error for a file that is not text.
var errBinary = errors.New("this is not a text file: it has bytes of 0")

// Open opens a text file; see Reader. Errors name the file.
func Open(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := Reader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{r, f}, nil
}

// Reader returns the text in r, unpacked if it is gzipped and without the UTF-8
// byte-order mark. It returns an error if the text is UTF-16 or has bytes of 0
// near the beginning.
func Reader(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	if head, _ := b.Peek(2); bytes.Equal(head, []byte("\x1f\x8b")) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, err
		}
		b = bufio.NewReader(&limited{z, MaxBytes})
	}
	head, err := b.Peek(512)
	if err != nil && err != io.EOF && len(head) == 0 {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return nil, ErrUTF16
	case len(head) >= 4 && bytes.Count(head, []byte{0}) >= len(head)/2-1:
		return nil, fmt.Errorf("%w (it has no byte-order mark)", ErrUTF16)
	case bytes.IndexByte(head, 0) >= 0:
		return nil, errBinary
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		_, _ = b.Discard(3)
	}
	return b, nil
}

// limited is like an io.LimitedReader, but at its limit it returns an error.
type limited struct {
	r io.Reader
	n int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.n <= 0 {
		return 0, fmt.Errorf("the file unpacks to more than %d bytes", MaxBytes)
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.n)])
	l.n -= int64(n)
	return n, err
}

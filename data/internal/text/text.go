// Package text opens text files as people have them: plain or gzipped, with a
// byte-order mark or without. What is no text is named for what it is.
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

// MaxBytes is the most that is read of a file, once unpacked.
const MaxBytes = 1 << 30

// ErrUTF16 says that a text is UTF-16.
var ErrUTF16 = errors.New("the text is UTF-16; save it as UTF-8")

// errBinary says that a file is no text.
var errBinary = errors.New("this is no text file: it has bytes of 0")

// Open opens a file as Reader does. Errors name it.
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

// Reader returns the text in r without a UTF-8 byte-order mark, unpacked if it is
// gzipped. UTF-16, and bytes of 0 near the beginning, are an error.
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

// limited is an io.LimitedReader that says so when it comes to its end.
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

package dicom

import (
	"errors"
	"fmt"
	"sync"
)

// A Frame is the coded frame that a registered decoder is given, and what the
// file's header says of it.
type Frame struct {
	Syntax        Syntax
	Data          []byte // the code stream; not to be changed
	Rows, Columns int
	Samples       int  // per pixel, 1 or 3
	Allocated     int  // bits a sample has in the output: 8, 16 or 32
	Stored        int  // bits a sample uses
	Signed        bool // two's complement
}

// A Decoder decodes one frame to Rows*Columns*Samples samples, row-major, the
// samples of a pixel together, little endian, Allocated bits each. It must
// check the code stream's own size against the Frame before it allocates. Its
// errors mean that the code stream is broken, unless they are
// *UnsupportedError.
type Decoder func(*Frame) ([]byte, error)

var decoders sync.Map // Syntax -> Decoder

// RegisterDecoder has Read use d for compressed pixels of a transfer syntax
// that this package does not decode itself. The last registration counts. It is
// meant for the init function of a package imported for its side effect.
func RegisterDecoder(s Syntax, d Decoder) { decoders.Store(s, d) }

// pixelsPerByte bounds what a code stream may claim to hold before it is given
// to a registered decoder. JPEG 2000 codes even areas in next to nothing, so that
// there is no limit in principle; no real film comes near this one.
const pixelsPerByte = 1 << 14

// registered decodes a frame with the decoder registered for its syntax; at is
// its place in the file.
func (st *study) registered(data []byte, at int) ([]byte, error) {
	d, ok := decoders.Load(st.syntax)
	if !ok {
		return nil, &UnsupportedError{Syntax: st.syntax}
	}
	s := st.shape
	if s.allocated == 1 {
		return nil, &UnsupportedError{st.syntax, "one bit allocated"}
	}
	if s.rows*s.columns/pixelsPerByte > len(data) {
		return nil, broken(at, "%d bytes cannot hold %dx%d pixels", len(data), s.columns, s.rows)
	}
	pix, err := d.(Decoder)(&Frame{
		Syntax: st.syntax, Data: data, Rows: s.rows, Columns: s.columns,
		Samples: s.samples, Allocated: s.allocated, Stored: s.stored, Signed: s.signed,
	})
	var unsupported *UnsupportedError
	switch {
	case errors.As(err, &unsupported):
		return nil, err
	case err != nil:
		return nil, &FormatError{Offset: int64(at), Msg: fmt.Sprintf("%s: %v", st.syntax.Name(), err), Err: err}
	case len(pix) != s.bytes():
		return nil, fmt.Errorf("dicom: the decoder registered for %s returned %d bytes, want %d", st.syntax, len(pix), s.bytes())
	}
	return pix, nil
}

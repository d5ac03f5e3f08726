package dicom

import (
	"errors"
	"fmt"
	"sync"
)

// A Frame is the coded frame that a registered decoder gets, and what the
// header of the file says about it.
type Frame struct {
	Syntax        Syntax
	Data          []byte // the code stream; must not be changed
	Rows, Columns int
	Samples       int  // per pixel, 1 or 3
	Allocated     int  // bits of a sample in the output: 8, 16 or 32
	Stored        int  // bits that a sample uses
	Signed        bool // two's complement
}

// A Decoder decodes one frame to Rows*Columns*Samples samples of Allocated
// bits: row-major, the samples of a pixel together, little endian. It must
// check the size in the code stream against the Frame before it allocates
// memory. An error means that the code stream is broken, unless it is an
// *UnsupportedError.
type Decoder func(*Frame) ([]byte, error)

var decoders sync.Map // Syntax -> Decoder

// RegisterDecoder makes Read use d for compressed pixels of a transfer syntax
// that this package does not decode. The last registration for a syntax counts.
// Call it in the init function of a package that is imported for its side
// effect.
func RegisterDecoder(s Syntax, d Decoder) { decoders.Store(s, d) }

// pixelsPerByte limits the size of a frame by the length of its code stream,
// before a registered decoder gets it. JPEG 2000 has no such limit, because it
// codes flat areas in almost no bytes, but no real film comes near this one.
const pixelsPerByte = 1 << 14

// registered decodes a frame with the decoder registered for its syntax; at is
// the offset of the frame in the file.
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

package dicom

import (
	"errors"
	"fmt"
)

// ErrNoPixels is wrapped by the error for a valid file without an image: a
// report, a plan, a presentation state.
var ErrNoPixels = errors.New("no pixel data")

// ErrLimit is wrapped by the errors for files larger than Options.MaxBytes and
// images larger than Options.MaxPixels.
var ErrLimit = errors.New("over the limit")

// ErrFrame is wrapped by the error for an Options.Frame that the file does not
// have.
var ErrFrame = errors.New("no such frame")

// A FormatError reports a file that breaks the standard: it is not DICOM, is
// cut off, or contradicts itself.
type FormatError struct {
	// Offset is the position in the file, in bytes from 0. In a deflated file,
	// after the file meta information, it is the position in the inflated
	// stream. It is -1 if each part is valid and only their combination is not.
	Offset int64
	Msg    string
	Err    error // the decoder's own error, if it had one
}

func (e *FormatError) Error() string {
	if e.Offset < 0 {
		return "dicom: " + e.Msg
	}
	return fmt.Sprintf("dicom: at byte %d: %s", e.Offset, e.Msg)
}

// Unwrap returns e.Err.
func (e *FormatError) Unwrap() error { return e.Err }

// An UnsupportedError reports a valid file in a form that this package does not
// read.
type UnsupportedError struct {
	Syntax Syntax // the file's transfer syntax
	What   string // the feature, or empty if it is the syntax itself
}

func (e *UnsupportedError) Error() string {
	if e.What != "" {
		return fmt.Sprintf("dicom: %s is not supported (transfer syntax %s, %s)", e.What, e.Syntax, e.Syntax.Name())
	}
	hint := ""
	switch e.Syntax {
	case JPEG2000Lossless, JPEG2000:
		hint = "; import data/dicom/codec and build with -tags dicomcodec to read it"
	}
	return fmt.Sprintf("dicom: transfer syntax %s (%s) is not supported%s", e.Syntax, e.Syntax.Name(), hint)
}

func broken(at int, format string, a ...any) error {
	return &FormatError{Offset: int64(at), Msg: fmt.Sprintf(format, a...)}
}

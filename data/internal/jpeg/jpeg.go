// Package jpeg decodes JPEG pictures and the JPEG processes that DICOM allows:
// baseline, extended and progressive DCT with 8 or 12 bits, and lossless Huffman
// coding with 2 to 16 bits (ITU-T T.81, processes 1 to 12 and 14); and JPEG-LS,
// lossless and near-lossless, with 2 to 16 bits (ITU-T T.87).
//
// The DCT decoder is exact: its inverse transform is the accurate integer
// transform of the Independent JPEG Group ("islow"), with the same rounding,
// and chroma is upsampled with the same triangle filter. So grey pixels equal
// those of libjpeg and of all programs that use it.
//
// Unlike libjpeg the decoder is strict. It returns an error, never a partly
// grey image, if a code does not exist, a coefficient is past the 63rd, a
// marker is out of place, or entropy data end too early or go on after the last
// block.
package jpeg

import "fmt"

// An Image is one decoded frame, row-major, components interleaved (R, G, B, R,
// ...). It has the colour space of the stream; nothing is converted.
type Image struct {
	Width, Height int
	Components    int  // 1 or 3
	Precision     int  // bits per sample, 2 to 16
	Lossless      bool // lossless process or JPEG-LS
	Open          bool // the end marker is missing, see Limits.OpenEnd

	// Exactly one of the two is set: Pix8 if Precision <= 8, else Pix16.
	Pix8  []uint8
	Pix16 []uint16

	// Transform is the colour transform in an Adobe APP14 marker: three
	// components are RGB (0) or YCbCr (1). It is -1 without the marker.
	Transform int
}

// Limits say what Decode accepts.
type Limits struct {
	Pixels int // largest Width*Height, 0 means 1<<27

	// Width, Height and Components, if not 0, are the values that the frame
	// header must have. Precision, if not 0, is the largest allowed. Otherwise
	// Decode returns a FormatError before it allocates memory for samples.
	Width, Height, Components, Precision int

	// OpenEnd accepts a stream that ends after its last sample without the end
	// marker. A progressive stream must contain every bit of every coefficient.
	OpenEnd bool
}

// A FormatError reports a stream that breaks the standard.
type FormatError struct {
	Offset int // in bytes from the start of the stream
	Msg    string
}

func (e *FormatError) Error() string { return fmt.Sprintf("jpeg: at byte %d: %s", e.Offset, e.Msg) }

// An UnsupportedError names a feature that the standard allows but Decode does not
// support.
type UnsupportedError string

func (e UnsupportedError) Error() string { return "jpeg: " + string(e) + " is not supported" }

// A LimitError reports an image larger than the caller's limit.
type LimitError struct{ Width, Height, Pixels int }

func (e *LimitError) Error() string {
	return fmt.Sprintf("jpeg: image is %dx%d, the limit is %d pixels", e.Width, e.Height, e.Pixels)
}

// Package jpeg decodes JPEG pictures and the JPEG processes that DICOM allows:
// baseline, extended and progressive DCT with 8 or 12 bits, and lossless Huffman
// coding with 2 to 16 bits (ITU-T T.81, processes 1 to 12 and 14); and JPEG-LS,
// lossless and near-lossless, with 2 to 16 bits (ITU-T T.87).
//
// The DCT decoder is exact: its inverse transform is the accurate integer one
// of the Independent JPEG Group ("islow"), rounding included, and chroma is
// upsampled with the same triangle filter, so that grey pixels are those of
// libjpeg and of everything built on it.
//
// Unlike libjpeg the decoder is strict. A code that does not exist, a
// coefficient past the 63rd, a marker out of place, entropy data that ends too
// early or goes on after the last block is an error, never a grey patch.
package jpeg

import "fmt"

// An Image is one decoded frame, row-major, components interleaved
// (R, G, B, R, ...), in the colour space of the stream: nothing is converted.
type Image struct {
	Width, Height int
	Components    int  // 1 or 3
	Precision     int  // bits per sample, 2 to 16
	Lossless      bool // lossless process or JPEG-LS
	Open          bool // the end marker is missing, see Limits.OpenEnd

	// Exactly one of the two is set: Pix8 if Precision <= 8.
	Pix8  []uint8
	Pix16 []uint16

	// Transform says what an Adobe APP14 marker says of three components: the
	// stream holds RGB (0) or YCbCr (1); -1 without the marker.
	Transform int
}

// Limits bound what Decode accepts.
type Limits struct {
	Pixels int // largest Width*Height, 0 means 1<<27

	// Width, Height and Components, where they are not 0, are what the frame
	// header must say, Precision is the most it may. A frame header that says
	// otherwise is a FormatError before anything is made for its samples.
	Width, Height, Components, Precision int

	// OpenEnd accepts a stream that ends behind its last sample without the end
	// marker. A progressive stream must have sent every bit of every coefficient.
	OpenEnd bool
}

// A FormatError reports a stream that breaks the standard.
type FormatError struct {
	Offset int // in bytes from the start of the stream
	Msg    string
}

func (e *FormatError) Error() string { return fmt.Sprintf("jpeg: at byte %d: %s", e.Offset, e.Msg) }

// An UnsupportedError names a feature that the standard allows and Decode does not read.
type UnsupportedError string

func (e UnsupportedError) Error() string { return "jpeg: " + string(e) + " is not supported" }

// A LimitError reports an image larger than the caller's limit.
type LimitError struct{ Width, Height, Pixels int }

func (e *LimitError) Error() string {
	return fmt.Sprintf("jpeg: image is %dx%d, the limit is %d pixels", e.Width, e.Height, e.Pixels)
}

package dicom

// A Syntax is the UID of a transfer syntax: how a file's elements and pixels
// are encoded.
type Syntax string

// The transfer syntaxes that this package treats specially (DICOM PS3.6, table
//
const (
	ImplicitLittleEndian Syntax = "1.2.840.10008.1.2"
	ExplicitLittleEndian Syntax = "1.2.840.10008.1.2.1"
	Deflated             Syntax = "1.2.840.10008.1.2.1.99"
	ExplicitBigEndian    Syntax = "1.2.840.10008.1.2.2"
	JPEGBaseline         Syntax = "1.2.840.10008.1.2.4.50"
	JPEGExtended         Syntax = "1.2.840.10008.1.2.4.51"
	JPEGSpectral         Syntax = "1.2.840.10008.1.2.4.53"
	JPEGProgressive      Syntax = "1.2.840.10008.1.2.4.55"
	JPEGLossless         Syntax = "1.2.840.10008.1.2.4.57"
	JPEGLosslessSV1      Syntax = "1.2.840.10008.1.2.4.70"
	JPEGLSLossless       Syntax = "1.2.840.10008.1.2.4.80"
	JPEGLSNearLossless   Syntax = "1.2.840.10008.1.2.4.81"
	JPEG2000Lossless     Syntax = "1.2.840.10008.1.2.4.90"
	JPEG2000             Syntax = "1.2.840.10008.1.2.4.91"
	RLELossless          Syntax = "1.2.840.10008.1.2.5"
)

var syntaxNames = map[Syntax]string{
	ImplicitLittleEndian: "Implicit VR Little Endian",
	ExplicitLittleEndian: "Explicit VR Little Endian",
	Deflated:             "Deflated Explicit VR Little Endian",
	ExplicitBigEndian:    "Explicit VR Big Endian",
	JPEGBaseline:         "JPEG Baseline (Process 1)",
	JPEGExtended:         "JPEG Extended (Processes 2 and 4)",
	JPEGSpectral:         "JPEG Spectral Selection (Processes 6 and 8)",
	JPEGProgressive:      "JPEG Full Progression (Processes 10 and 12)",
	JPEGLossless:         "JPEG Lossless (Process 14)",
	JPEGLosslessSV1:      "JPEG Lossless, First-Order Prediction (Process 14, Selection Value 1)",
	JPEGLSLossless:       "JPEG-LS Lossless",
	JPEGLSNearLossless:   "JPEG-LS Near-Lossless",
	JPEG2000Lossless:     "JPEG 2000 (Lossless Only)",
	JPEG2000:             "JPEG 2000",
	RLELossless:          "RLE Lossless",

	"1.2.840.113619.5.2":      "GE Private Implicit VR Big Endian",
	"1.2.840.10008.1.2.4.92":  "JPEG 2000 Part 2 Multi-component (Lossless Only)",
	"1.2.840.10008.1.2.4.93":  "JPEG 2000 Part 2 Multi-component",
	"1.2.840.10008.1.2.4.94":  "JPIP Referenced",
	"1.2.840.10008.1.2.4.95":  "JPIP Referenced Deflate",
	"1.2.840.10008.1.2.4.100": "MPEG-2 Main Profile, Main Level",
	"1.2.840.10008.1.2.4.101": "MPEG-2 Main Profile, High Level",
	"1.2.840.10008.1.2.4.102": "MPEG-4 AVC/H.264 High Profile, Level 4.1",
	"1.2.840.10008.1.2.4.103": "MPEG-4 AVC/H.264 BD-compatible High Profile, Level 4.1",
	"1.2.840.10008.1.2.4.107": "HEVC/H.265 Main Profile, Level 5.1",
	"1.2.840.10008.1.2.4.108": "HEVC/H.265 Main 10 Profile, Level 5.1",
	"1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
	"1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
	"1.2.840.10008.1.2.4.112": "JPEG XL",
	"1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000 (Lossless Only)",
	"1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000 with RPCL (Lossless Only)",
	"1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
}

// Name returns the name of s in the standard, or "unknown".
func (s Syntax) Name() string {
	if n, ok := syntaxNames[s]; ok {
		return n
	}
	return "unknown"
}

// lossy returns the name of the lossy compression of s (DICOM PS3.3,
// C.7.6.1.1.5.1), or "" if s is lossless. JPEG2000 gives "" too, because it may
// be lossless.
func (s Syntax) lossy() string {
	switch s {
	case JPEGBaseline, JPEGExtended, JPEGSpectral, JPEGProgressive:
		return "ISO_10918_1"
	case JPEGLSNearLossless:
		return "ISO_14495_1"
	}
	return ""
}

// native reports whether the pixels of a file in s are uncompressed.
func (s Syntax) native() bool {
	return s == ImplicitLittleEndian || s == ExplicitLittleEndian || s == ExplicitBigEndian || s == Deflated
}

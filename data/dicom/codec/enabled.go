//go:build dicomcodec

package codec

import "github.com/hcunet/hcunet/data/dicom"

// Enabled reports whether the program was built with the tag dicomcodec.
const Enabled = true

func init() {
	dicom.RegisterDecoder(dicom.JPEG2000Lossless, jpeg2000)
	dicom.RegisterDecoder(dicom.JPEG2000, jpeg2000)
}

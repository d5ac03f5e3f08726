//go:build dicomcodec

package codec

// #cgo pkg-config: charls libopenjp2
// #include <stdlib.h>
// #include <charls/charls.h>
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/hcunet/hcunet/data/dicom"
)

// jpegLS decodes a JPEG-LS frame (ITU-T T.87).
func jpegLS(f *dicom.Frame) ([]byte, error) {
	if len(f.Data) == 0 {
		return nil, errors.New("no data")
	}
	d := C.charls_jpegls_decoder_create()
	if d == nil {
		return nil, errors.New("out of memory")
	}
	defer C.charls_jpegls_decoder_destroy(d)
	// CharLS keeps the address of its source between calls, so the source may
	// not be Go's.
	src := C.CBytes(f.Data)
	defer C.free(src)
	if err := charls(C.charls_jpegls_decoder_set_source_buffer(d, src, C.size_t(len(f.Data)))); err != nil {
		return nil, err
	}
	if err := charls(C.charls_jpegls_decoder_read_header(d)); err != nil {
		return nil, err
	}
	var info C.charls_frame_info
	if err := charls(C.charls_jpegls_decoder_get_frame_info(d, &info)); err != nil {
		return nil, err
	}
	bits := int(info.bits_per_sample)
	if int(info.width) != f.Columns || int(info.height) != f.Rows || int(info.component_count) != f.Samples || bits > f.Allocated {
		return nil, fmt.Errorf("the image is %dx%d with %d components of %d bits, the header says %dx%d with %d of at most %d",
			info.width, info.height, info.component_count, bits, f.Columns, f.Rows, f.Samples, f.Allocated)
	}
	var mode C.charls_interleave_mode
	if err := charls(C.charls_jpegls_decoder_get_interleave_mode(d, &mode)); err != nil {
		return nil, err
	}
	word := (bits + 7) / 8
	out := make([]byte, f.Rows*f.Columns*f.Samples*word)
	if err := charls(C.charls_jpegls_decoder_decode_to_buffer(d, unsafe.Pointer(&out[0]), C.size_t(len(out)), 0)); err != nil {
		return nil, err
	}
	planar := mode == C.CHARLS_INTERLEAVE_MODE_NONE && f.Samples == 3
	return samples(f, func(pixel, component int) int32 {
		i := pixel*f.Samples + component
		if planar {
			i = component*f.Rows*f.Columns + pixel
		}
		if word == 1 {
			return int32(out[i])
		}
		return int32(out[2*i]) | int32(out[2*i+1])<<8
	}), nil
}

// charls turns a CharLS code into an error.
func charls(code C.charls_jpegls_errc) error {
	if code == C.CHARLS_JPEGLS_ERRC_SUCCESS {
		return nil
	}
	return errors.New(C.GoString(C.charls_get_error_message(code)))
}

// samples lays the values that at gives out as dicom.Decoder demands.
func samples(f *dicom.Frame, at func(pixel, component int) int32) []byte {
	word := f.Allocated / 8
	out := make([]byte, 0, f.Rows*f.Columns*f.Samples*word)
	for p := range f.Rows * f.Columns {
		for c := range f.Samples {
			v := at(p, c)
			for k := range word {
				out = append(out, byte(v>>(8*k)))
			}
		}
	}
	return out
}

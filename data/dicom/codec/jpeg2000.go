//go:build dicomcodec

package codec

// #cgo pkg-config: libopenjp2
// #include "openjpeg_shim.h"
import "C"

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/hcunet/hcunet/data/dicom"
)

// jpeg2000 decodes a JPEG 2000 frame (ITU-T T.800). OpenJPEG undoes the
// reversible and the irreversible colour transform, so colours are returned as
// RGB.
func jpeg2000(f *dicom.Frame) ([]byte, error) {
	stream, err := codestream(f)
	if err != nil {
		return nil, err
	}
	var img C.hcu_j2k
	var msg [256]C.char
	defer C.hcu_j2k_free(&img)
	if C.hcu_j2k_decode((*C.uchar)(unsafe.Pointer(&stream[0])), C.size_t(len(stream)), &img, &msg[0], C.size_t(len(msg))) != 0 {
		return nil, errors.New(C.GoString(&msg[0]))
	}
	if int(img.width) != f.Columns || int(img.height) != f.Rows || int(img.components) != f.Samples || int(img.precision) > f.Allocated {
		return nil, fmt.Errorf("the image is %dx%d with %d components of %d bits, the header says %dx%d with %d of at most %d",
			img.width, img.height, img.components, img.precision, f.Columns, f.Rows, f.Samples, f.Allocated)
	}
	var planes [3][]int32
	for c := range f.Samples {
		planes[c] = unsafe.Slice((*int32)(unsafe.Pointer(img.data[c])), f.Rows*f.Columns)
	}
	// Some writers code signed values as unsigned values with the same bits.
	shift := 32 - uint(img.precision)
	if !f.Signed || img.is_signed != 0 {
		shift = 0
	}
	return samples(f, func(p, c int) int32 { return planes[c][p] << shift >> shift }), nil
}

// codestream returns the JPEG 2000 code stream of the frame and checks its SIZ
// segment (T.800 A.5.1), because OpenJPEG allocates memory for every tile in
// that segment. A frame should be a bare code stream, but some files contain a
// JP2 file.
func codestream(f *dicom.Frame) ([]byte, error) {
	i := bytes.Index(f.Data, []byte{0xFF, 0x4F, 0xFF, 0x51})
	if i < 0 || len(f.Data)-i < 4+38 {
		return nil, errors.New("no code stream")
	}
	s := f.Data[i:]
	u32 := func(at int) uint64 { return uint64(binary.BigEndian.Uint32(s[at:])) }
	x1, y1, x0, y0 := u32(8), u32(12), u32(16), u32(20)
	tw, th, tx0, ty0 := u32(24), u32(28), u32(32), u32(36)
	if x1-x0 != uint64(f.Columns) || y1-y0 != uint64(f.Rows) {
		return nil, fmt.Errorf("the image is %dx%d, the header says %dx%d", x1-x0, y1-y0, f.Columns, f.Rows)
	}
	if n := binary.BigEndian.Uint16(s[40:]); int(n) != f.Samples {
		return nil, fmt.Errorf("the image has %d components, the header says %d", n, f.Samples)
	}
	if len(s) < 42+3*f.Samples {
		return nil, errors.New("the stream ends in its SIZ segment")
	}
	for c := range f.Samples {
		if bits, dx, dy := int(s[42+3*c]&0x7F)+1, s[43+3*c], s[44+3*c]; bits > f.Allocated || dx != 1 || dy != 1 {
			return nil, fmt.Errorf("component %d has %d bits in steps of %dx%d, the header says at most %d in steps of 1x1", c, bits, dx, dy, f.Allocated)
		}
	}
	if tw == 0 || th == 0 || tx0 > x0 || ty0 > y0 {
		return nil, fmt.Errorf("tiles of %dx%d from %d, %d", tw, th, tx0, ty0)
	}
	across, down := (x1-tx0+tw-1)/tw, (y1-ty0+th-1)/th
	if most := uint64(len(s)/14 + 1); across > most || down > most || across*down > most { // a tile-part has at least 14 bytes
		return nil, fmt.Errorf("%dx%d tiles in %d bytes", across, down, len(s))
	}
	return s, nil
}

// samples returns the values of at in the layout of dicom.Decoder.
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

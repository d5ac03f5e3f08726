package dicom

import "bytes"

// Samples returns the samples of all frames of a file one after the other, as
// the reference decoders of the tests have them, and their number of bytes each.
func Samples(file []byte) (pix []byte, word int, err error) {
	o := (*Options)(nil).defaults()
	st, err := open(file, &o)
	if err != nil {
		return nil, 0, err
	}
	var all bytes.Buffer
	for i := range st.shape.frames {
		p, err := st.frame(i, o.MaxPixels)
		if err != nil {
			return nil, 0, err
		}
		all.Write(p)
	}
	return all.Bytes(), max(st.shape.allocated, 8) / 8, nil
}

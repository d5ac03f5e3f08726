package dicom

import (
	"image"
	"strconv"
	"strings"
)

// A Film is one grey image in display polarity, 0 the darkest, with what the
// file says about it. Text fields are empty where the file is silent.
type Film struct {
	Rows, Columns int

	// Bits is the number of significant bits: pixels lie in 0..1<<Bits-1.
	Bits int
	// Exactly one of Pix8 (Bits <= 8) and Pix16 holds the pixels, row-major,
	// unless only the header was read.
	Pix8  []uint8
	Pix16 []uint16

	// Scale and Offset lead from a pixel to the value it stands for,
	// Offset + Scale*pixel: the stored value, or with Options.ApplyModality the
	// modality's. Scale is -1 for an inverted film, and 0 where there is no way
	// back: after a VOI window or LUT, and for films that were colour.
	Scale, Offset float64

	// Frames is the number of frames in the file, Frame the one read.
	Frames, Frame int

	// RowSpacing and ColumnSpacing are the distances between rows and between
	// columns in mm, at the patient if the file says so, else at the detector;
	// 0 if it says neither.
	RowSpacing, ColumnSpacing float64

	PatientID      string
	Sex            string // M, F or O
	Age            string // as in the file: 038Y, or 38 in the SIIM set
	StudyUID       string
	SeriesUID      string
	SOPInstanceUID string
	SOPClassUID    string
	Modality       string // CR, DX, ...
	BodyPart       string
	View           string // PA, AP, LL, ...
	ConversionType string // of secondary captures: WSD, DI, SYN, ...

	Syntax      Syntax // the transfer syntax of the file
	Photometric string // photometric interpretation of the file
}

// film fills a Film from the header, without pixels.
func (st *study) film() (*Film, error) {
	h, s := st.head, st.shape
	f := &Film{
		Rows: s.rows, Columns: s.columns, Bits: min(s.stored, 16), Scale: 1, Frames: s.frames,
		PatientID:      h.text(0x00100020),
		Sex:            h.text(0x00100040),
		Age:            h.text(0x00101010),
		StudyUID:       h.text(0x0020000D),
		SeriesUID:      h.text(0x0020000E),
		SOPInstanceUID: h.text(0x00080018),
		SOPClassUID:    h.text(0x00080016),
		Modality:       h.text(0x00080060),
		BodyPart:       h.text(0x00180015),
		View:           h.text(0x00185101),
		ConversionType: h.text(0x00080064),
		Syntax:         st.syntax,
		Photometric:    s.photometric,
	}
	for _, t := range []uint32{0x00280030, 0x00181164} {
		v, err := h.decimals(t)
		if err != nil {
			return nil, err
		}
		if len(v) >= 2 && f.RowSpacing == 0 {
			f.RowSpacing, f.ColumnSpacing = v[0], v[1]
		}
	}
	return f, nil
}

// Gray returns the film with 8 bits. Films of 8 bits share their pixels with
// the image; others are scaled so that black stays 0 and white becomes 255.
func (f *Film) Gray() *image.Gray {
	img := &image.Gray{Pix: f.Pix8, Stride: f.Columns, Rect: image.Rect(0, 0, f.Columns, f.Rows)}
	if f.Bits == 8 && f.Pix8 != nil {
		return img
	}
	img.Pix = make([]uint8, f.Rows*f.Columns)
	white := uint32(1)<<f.Bits - 1
	for i := range f.Pix8 {
		img.Pix[i] = uint8((uint32(f.Pix8[i])*255 + white/2) / white)
	}
	for i := range f.Pix16 {
		img.Pix[i] = uint8((uint32(f.Pix16[i])*255 + white/2) / white)
	}
	return img
}

// Gray16 returns the film with 16 bits, scaled so that black stays 0 and white
// becomes 65535.
func (f *Film) Gray16() *image.Gray16 {
	img := image.NewGray16(image.Rect(0, 0, f.Columns, f.Rows))
	white := uint64(1)<<f.Bits - 1
	put := func(i int, v uint64) {
		v = (v*65535 + white/2) / white
		img.Pix[2*i], img.Pix[2*i+1] = uint8(v>>8), uint8(v)
	}
	for i, v := range f.Pix8 {
		put(i, uint64(v))
	}
	for i, v := range f.Pix16 {
		put(i, uint64(v))
	}
	return img
}

// AgeYears returns the patient's age in years, from the standard's form (038Y,
// 018M, 006W, 010D) or a bare number of years as in the SIIM set. It reports
// false if Age is neither.
func (f *Film) AgeYears() (float64, bool) {
	s, per := strings.TrimSpace(f.Age), 1.0
	if s == "" {
		return 0, false
	}
	switch s[len(s)-1] {
	case 'Y':
		s = s[:len(s)-1]
	case 'M':
		s, per = s[:len(s)-1], 12
	case 'W':
		s, per = s[:len(s)-1], 365.25/7
	case 'D':
		s, per = s[:len(s)-1], 365.25
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, false
	}
	return float64(n) / per, true
}

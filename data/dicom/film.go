package dicom

import (
	"cmp"
	"image"
	"strconv"
	"strings"

	"github.com/hcunet/hcunet/data/internal/grey"
)

// A Film is one grey image, in which 0 is the darkest, with facts from the file
// about it. Text fields are empty if the file does not have them.
type Film struct {
	Rows, Columns int

	// Bits is the number of significant bits: pixels are in 0..1<<Bits-1.
	Bits int
	// Exactly one of Pix8 (Bits <= 8) and Pix16 holds the pixels, row-major,
	// unless only the header was read.
	Pix8  []uint8
	Pix16 []uint16

	// Black and White are the pixel values that Gray and Gray16 make black and white.
	// They are 0 and 1<<Bits-1 for films of up to 8 bits, and if the file says how to
	// display its values (Options.ApplyVOI, a palette). Otherwise Black is the lowest
	// and White the highest value among the pixels, without padding (0028,0120). So
	// no value is cut off, and the number of stored bits does not matter: values 0 to
	// 278 in 16 bits give the same picture as in 9.
	Black, White uint16

	// Scale and Offset give the original value of a pixel, Offset +
	// Scale*pixel: the stored value, or with Options.ApplyModality the value in
	// the units of the modality. Scale is -1 for an inverted film. It is 0 if
	// the original value cannot be computed: after a VOI window or LUT, and for
	// films in colour.
	Scale, Offset float64

	// Frames is the number of frames in the file, Frame the one read.
	Frames, Frame int

	// RowSpacing and ColumnSpacing are the distances between rows and between
	// columns in mm; 0 if the file does not have them. Spacing says where they
	// were measured.
	RowSpacing, ColumnSpacing float64
	Spacing                   Spacing

	SliceThickness float64 // in mm; 0 if there is none

	// Position holds the position of the first pixel in mm, three numbers, and
	// Orientation the directions of a row and a column, six numbers, in the frame of
	// reference. They are nil if there are none, as in radiographs.
	Position, Orientation []float64
	FrameOfReferenceUID   string
	PositionReference     string
	PatientOrientation    string // directions of a row and a column as letters: L\F

	// Texts are returned as they are in the file. If an identifier is not a
	// UID, there is a warning. Check any of them before you use it as a file
	// name.
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

	// Besides the identifiers, objects made from the film contain these too.
	PatientName                  Private
	BirthDate                    Private
	ReferringPhysician           Private
	StudyID, AccessionNumber     string
	StudyDate, StudyTime         string
	SeriesNumber, InstanceNumber string

	Syntax      Syntax // the transfer syntax of the file
	Photometric string // photometric interpretation of the file

	// Lossy says that the pixels were compressed with loss at some time. LossyMethod
	// and LossyRatio say how and how much, if the file says it; several values are
	// separated by backslashes.
	Lossy                   bool
	LossyMethod, LossyRatio string
	// BurnedIn is YES or NO if the file says whether the pixels show who the
	// patient is, else empty.
	BurnedIn string

	// Warnings are sentences about faults of the file that do not affect its
	// pixels.
	Warnings []string
}

// A Spacing is the attribute from which the pixel spacing was read.
type Spacing string

const (
	PixelSpacing   Spacing = "PixelSpacing"               // at the patient, or calibrated (0028,0030)
	ImagerSpacing  Spacing = "ImagerPixelSpacing"         // at the detector, where the image is larger than the patient (0018,1164)
	NominalSpacing Spacing = "NominalScannedPixelSpacing" // on a scanned film (0018,2010)
)

// A Private text says who the patient is. It does not print as text; string(p) is
// the text.
type Private string

// String returns a placeholder, which is printed instead of the text.
func (p Private) String() string {
	if p == "" {
		return ""
	}
	return "(withheld)"
}

// GoString returns the placeholder for %#v.
func (p Private) GoString() string { return strconv.Quote(p.String()) }

// film fills a Film from the header, without pixels.
func (st *study) film() *Film {
	h, s, l := st.head, st.shape, st.layout
	f := &Film{
		Rows: s.rows, Columns: s.columns, Bits: min(s.stored, 16), Scale: 1, Frames: s.frames,
		PatientID:      h.text(0x00100020),
		Sex:            h.text(0x00100040),
		Age:            h.text(0x00101010),
		StudyUID:       h.uid(l, "study instance UID", 0x0020000D),
		SeriesUID:      h.uid(l, "series instance UID", 0x0020000E),
		SOPInstanceUID: h.uid(l, "SOP instance UID", 0x00080018),
		SOPClassUID:    h.uid(l, "SOP class UID", 0x00080016),
		Modality:       h.text(0x00080060),
		BodyPart:       h.text(0x00180015),
		View:           h.text(0x00185101),
		ConversionType: h.text(0x00080064),
		Syntax:         st.syntax,
		Photometric:    s.photometric,

		PatientName:        Private(h.text(0x00100010)),
		BirthDate:          Private(h.text(0x00100030)),
		ReferringPhysician: Private(h.text(0x00080090)),
		StudyID:            h.text(0x00200010),
		AccessionNumber:    h.text(0x00080050),
		StudyDate:          h.text(0x00080020),
		StudyTime:          h.text(0x00080030),
		SeriesNumber:       h.text(0x00200011),
		InstanceNumber:     h.text(0x00200013),

		Lossy:       h.text(0x00282110) == "01" || st.syntax.lossy() != "",
		LossyMethod: cmp.Or(strings.Join(h.str[0x00282114], `\`), st.syntax.lossy()),
		LossyRatio:  strings.Join(h.str[0x00282112], `\`),
		BurnedIn:    h.text(0x00280301),

		FrameOfReferenceUID: h.uid(l, "frame of reference UID", 0x00200052),
		PositionReference:   h.text(0x00201040),
		PatientOrientation:  strings.Join(h.str[0x00200020], `\`),
		Position:            h.vector(l, "image position", 0x00200032, 3),
		Orientation:         h.vector(l, "image orientation", 0x00200037, 6),
	}
	f.Black, f.White = 0, 1<<f.Bits-1
	for _, a := range []struct {
		source Spacing
		name   string
		tag    uint32
	}{
		{PixelSpacing, "pixel spacing", 0x00280030},
		{ImagerSpacing, "imager pixel spacing", 0x00181164},
		{NominalSpacing, "nominal scanned pixel spacing", 0x00182010},
	} {
		if v := h.positives(l, a.name, a.tag, 2); v != nil && f.Spacing == "" {
			f.RowSpacing, f.ColumnSpacing, f.Spacing = v[0], v[1], a.source
		}
	}
	if v := h.positives(l, "slice thickness", 0x00180050, 1); v != nil {
		f.SliceThickness = v[0]
	}
	return f
}

// ends returns the pixels that become black and white.
func (f *Film) ends() (black, white uint64) {
	if f.White > f.Black {
		return uint64(f.Black), uint64(f.White)
	}
	return 0, 1<<f.Bits - 1
}

// Gray returns the film with 8 bits: Black becomes 0 and White 255. If Black is
// not less than White, as in a Film made by hand, 0 and 1<<Bits-1 are used. If
// this changes no pixel of an 8-bit film, the image shares the pixels of the
// film.
func (f *Film) Gray() *image.Gray {
	img := &image.Gray{Pix: f.Pix8, Stride: f.Columns, Rect: image.Rect(0, 0, f.Columns, f.Rows)}
	black, white := f.ends()
	if black == 0 && white == 255 && f.Pix8 != nil {
		return img
	}
	img.Pix = make([]uint8, f.Rows*f.Columns)
	for i, v := range f.Pix8 {
		img.Pix[i] = uint8(level(uint64(v), black, white, 255))
	}
	for i, v := range f.Pix16 {
		img.Pix[i] = uint8(level(uint64(v), black, white, 255))
	}
	return img
}

// Gray16 returns the film with 16 bits, like Gray with 65535 in place of 255.
func (f *Film) Gray16() *image.Gray16 {
	img := image.NewGray16(image.Rect(0, 0, f.Columns, f.Rows))
	black, white := f.ends()
	put := func(i int, v uint64) {
		v = level(v, black, white, 65535)
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

// level maps black..white to 0..most, rounded.
func level(v, black, white, most uint64) uint64 {
	v = min(max(v, black), white)
	return ((v-black)*most + (white-black)/2) / (white - black)
}

// Levels returns the number of different grey levels of Gray. A film with fewer
// than about 32 has almost no contrast: neither its values nor a window in its
// file say how to display it.
func (f *Film) Levels() int { return grey.Levels(f.Gray()) }

// AgeYears returns the patient's age in years. Age may have the form of the
// standard (038Y, 018M, 006W, 010D) or be a number of years, as in the SIIM
// set. It returns false if Age is neither.
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

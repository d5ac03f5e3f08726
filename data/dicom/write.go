package dicom

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"image/jpeg"
	"io"
	"strings"

	"github.com/hcunet/hcunet/data/dicom/internal/part10"
)

const secondaryCapture = "1.2.840.10008.5.1.4.1.1.7"

// Write writes f as a DICOM file with one frame in MONOCHROME2. The syntax must be
// ExplicitLittleEndian, with pixels of 8 or 16 bits, or JPEGBaseline, with 8 bits at JPEG
// quality 95.
//
// f must have Rows, Columns, Bits, Pix8 or Pix16, SOPInstanceUID, StudyUID and SeriesUID.
// The other text fields, spacing, position and orientation are written if they are set.
// Empty SOPClassUID, Modality, ConversionType and PatientName become secondary capture,
// OT, WSD and PatientID. Scale, Offset, Black and White are not written. Write returns an
// error if the fields of f contradict each other, and the errors of w.
func Write(w io.Writer, f *Film, syntax Syntax) error {
	if err := f.check(syntax); err != nil {
		return err
	}
	pixels, err := f.encodePixels(syntax)
	if err != nil {
		return err
	}
	class := cmp.Or(f.SOPClassUID, secondaryCapture)

	var set part10.Set
	set.Known(0x00080005, "CS", "ISO_IR 192") // UTF-8
	set.Known(0x00080016, "UI", class)
	set.Known(0x00080018, "UI", f.SOPInstanceUID)
	set.Known(0x00080020, "DA", f.StudyDate)
	set.Known(0x00080030, "TM", f.StudyTime)
	set.Known(0x00080050, "SH", f.AccessionNumber)
	set.Known(0x00080060, "CS", cmp.Or(f.Modality, "OT"))
	set.Known(0x00080064, "CS", cmp.Or(f.ConversionType, "WSD"))
	set.Known(0x00080090, "PN", string(f.ReferringPhysician))
	set.Known(0x00100010, "PN", cmp.Or(string(f.PatientName), f.PatientID))
	set.Known(0x00100020, "LO", f.PatientID)
	set.Known(0x00100030, "DA", string(f.BirthDate))
	set.Known(0x00100040, "CS", f.Sex)
	set.Known(0x00101010, "AS", f.Age)
	set.Known(0x00180015, "CS", f.BodyPart)
	if f.SliceThickness > 0 {
		set.Known(0x00180050, "DS", part10.Decimals([]float64{f.SliceThickness}))
	}
	if f.Spacing == ImagerSpacing {
		set.Known(0x00181164, "DS", f.spacing())
	}
	if f.Spacing == NominalSpacing {
		set.Known(0x00182010, "DS", f.spacing())
	}
	set.Known(0x00185101, "CS", f.View)
	set.Known(0x0020000D, "UI", f.StudyUID)
	set.Known(0x0020000E, "UI", f.SeriesUID)
	set.Known(0x00200010, "SH", f.StudyID)
	set.Known(0x00200011, "IS", f.SeriesNumber)
	set.Known(0x00200013, "IS", f.InstanceNumber)
	set.Known(0x00200020, "CS", f.PatientOrientation)
	set.Known(0x00200032, "DS", part10.Decimals(f.Position))
	set.Known(0x00200037, "DS", part10.Decimals(f.Orientation))
	set.Known(0x00200052, "UI", f.FrameOfReferenceUID)
	set.Known(0x00201040, "LO", f.PositionReference)
	set.Short(0x00280002, 1)
	set.Known(0x00280004, "CS", "MONOCHROME2")
	set.Short(0x00280010, f.Rows)
	set.Short(0x00280011, f.Columns)
	if f.Spacing == "" || f.Spacing == PixelSpacing {
		set.Known(0x00280030, "DS", f.spacing())
	}
	allocated := 8
	if f.Pix16 != nil {
		allocated = 16
	}
	set.Short(0x00280100, allocated)
	set.Short(0x00280101, f.Bits)
	set.Short(0x00280102, f.Bits-1)
	set.Short(0x00280103, 0)
	set.Known(0x00280301, "CS", f.BurnedIn)
	if f.Lossy || syntax.lossy() != "" {
		set.Known(0x00282110, "CS", "01")
		set.Known(0x00282112, "DS", f.LossyRatio)
		set.Known(0x00282114, "CS", cmp.Or(f.LossyMethod, syntax.lossy()))
	}

	set.Coded(tagPixels, pixels)
	_, err = w.Write(set.File(class, f.SOPInstanceUID, string(syntax)))
	return err
}

// spacing formats the spacing of rows and columns, "" if there is none.
func (f *Film) spacing() string {
	if !(f.RowSpacing > 0 && f.ColumnSpacing > 0) {
		return ""
	}
	return part10.Decimals([]float64{f.RowSpacing, f.ColumnSpacing})
}

// check returns an error if f cannot be written.
func (f *Film) check(syntax Syntax) error {
	if syntax != ExplicitLittleEndian && syntax != JPEGBaseline {
		return fmt.Errorf("dicom: cannot write transfer syntax %s (%s), only %s and %s", syntax, syntax.Name(), ExplicitLittleEndian, JPEGBaseline)
	}
	n := f.Rows * f.Columns
	if f.Rows < 1 || f.Columns < 1 || f.Rows > 0xFFFF || f.Columns > 0xFFFF {
		return fmt.Errorf("dicom: cannot write %d rows and %d columns, want 1 to 65535 of each", f.Rows, f.Columns)
	}
	if f.Pix8 != nil && f.Pix16 != nil || len(f.Pix8)+len(f.Pix16) != n {
		return fmt.Errorf("dicom: film of %dx%d has %d pixels of 8 and %d of 16 bits, want %d of one kind", f.Columns, f.Rows, len(f.Pix8), len(f.Pix16), n)
	}
	if f.Pix8 != nil && (f.Bits < 1 || f.Bits > 8) || f.Pix16 != nil && (f.Bits < 9 || f.Bits > 16) {
		return fmt.Errorf("dicom: film of %d bits, want 1 to 8 in Pix8 and 9 to 16 in Pix16", f.Bits)
	}
	if syntax == JPEGBaseline && (f.Pix8 == nil || f.Bits != 8) {
		return fmt.Errorf("dicom: JPEG baseline holds 8 bits, the film has %d", f.Bits)
	}
	for _, u := range []struct{ name, uid string }{
		{"SOPInstanceUID", f.SOPInstanceUID}, {"StudyUID", f.StudyUID}, {"SeriesUID", f.SeriesUID},
		{"SOPClassUID", cmp.Or(f.SOPClassUID, secondaryCapture)},
		{"FrameOfReferenceUID", cmp.Or(f.FrameOfReferenceUID, "1")},
	} {
		if !IsUID(u.uid) {
			return fmt.Errorf("dicom: %s is %q, want a UID: numbers with dots between them, at most 64 characters", u.name, u.uid)
		}
	}
	for _, t := range []struct{ name, text string }{
		{"PatientID", f.PatientID}, {"Sex", f.Sex}, {"Age", f.Age}, {"Modality", f.Modality},
		{"BodyPart", f.BodyPart}, {"View", f.View}, {"ConversionType", f.ConversionType},
		{"PatientName", string(f.PatientName)}, {"BirthDate", string(f.BirthDate)},
		{"ReferringPhysician", string(f.ReferringPhysician)}, {"StudyID", f.StudyID},
		{"AccessionNumber", f.AccessionNumber}, {"StudyDate", f.StudyDate}, {"StudyTime", f.StudyTime},
		{"SeriesNumber", f.SeriesNumber}, {"InstanceNumber", f.InstanceNumber}, {"PositionReference", f.PositionReference},
		{"BurnedIn", f.BurnedIn}, {"LossyMethod", strings.ReplaceAll(f.LossyMethod, `\`, "")},
		{"LossyRatio", strings.ReplaceAll(f.LossyRatio, `\`, "")},
		{"PatientOrientation", strings.Replace(f.PatientOrientation, `\`, "", 1)},
	} {
		if len(t.text) > 64 || strings.ContainsAny(t.text, "\\\x00\n\r") {
			return fmt.Errorf("dicom: cannot write %s: want at most 64 bytes without backslash or control character", t.name)
		}
	}
	return nil
}

// encodePixels returns the whole pixel data element.
func (f *Film) encodePixels(syntax Syntax) ([]byte, error) {
	if syntax == ExplicitLittleEndian {
		if f.Pix16 == nil {
			return part10.Element(nil, tagPixels, "OB", []byte(part10.Pad(string(f.Pix8), 0))), nil
		}
		b := make([]byte, 0, 2*len(f.Pix16))
		for _, v := range f.Pix16 {
			b = binary.LittleEndian.AppendUint16(b, v)
		}
		return part10.Element(nil, tagPixels, "OW", b), nil
	}
	var j bytes.Buffer
	if err := jpeg.Encode(&j, f.Gray(), &jpeg.Options{Quality: 95}); err != nil {
		return nil, fmt.Errorf("dicom: %w", err)
	}
	if j.Len()%2 == 1 {
		j.WriteByte(0)
	}
	b := part10.Element(nil, tagPixels, "OB", nil)
	binary.LittleEndian.PutUint32(b[8:], undefined)
	b = part10.Item(b, tagItem, 0) // no offset table
	b = part10.Item(b, tagItem, j.Len())
	b = append(b, j.Bytes()...)
	b = part10.Item(b, tagSeqEnd, 0)
	return b, nil
}

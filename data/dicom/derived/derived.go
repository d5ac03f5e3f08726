// Package derived writes DICOM objects that are made from a film: masks as a
// Segmentation, and the film with the masks drawn on it as a Secondary Capture.
//
//	masks := []derived.Mask{{Segment: derived.Pneumothorax, Image: mask}}
//	err := derived.WriteSegmentation(w, film, masks, &derived.Options{Time: time.Now(), Algorithm: "hcunet", Version: "1"})
//
// Both refer to the film, belong to its study and patient, and say that they are
// for research use, not for diagnosis. The same input gives the same bytes,
// because identifiers are hashes of the input.
//
// Sources: DICOM PS3.3 A.8.1 (Secondary Capture), A.51 (Segmentation), C.7.6.16
// and C.8.20; PS3.16 CID 7150 and 7162.
package derived

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/dicom/internal/part10"
)

// Notice is the text in every object and picture.
const Notice = "research use, not for diagnosis"

const (
	segmentation     = "1.2.840.10008.5.1.4.1.1.66.4"
	secondaryCapture = "1.2.840.10008.5.1.4.1.1.7"
)

// A Mask is one class of a film: its pixels and its description.
type Mask struct {
	Segment Segment
	Image   *image.Gray // as large as the film; pixels other than 0 belong to the class
}

// A Segment describes what a mask shows.
type Segment struct {
	Label    string // name for people, at most 64 characters
	Category Code   // of CID 7150
	Type     Code
	Modifier Code // of the type; may be empty
	Color    color.RGBA
}

// A Code is a term of a coding scheme, such as SNOMED CT.
type Code struct{ Value, Scheme, Meaning string }

// The classes of this library's data sets, in SNOMED CT.
var (
	Pneumothorax = Segment{
		Label:    "Pneumothorax",
		Category: Code{"49755003", "SCT", "Morphologically Abnormal Structure"},
		Type:     Code{"36118008", "SCT", "Pneumothorax"},
		Color:    color.RGBA{255, 140, 0, 255},
	}
	Lungs = Segment{
		Label:    "Lungs",
		Category: Code{"91723000", "SCT", "Anatomical Structure"},
		Type:     Code{"39607008", "SCT", "Lung"},
		Modifier: Code{"51440002", "SCT", "Right and left"},
		Color:    color.RGBA{0, 170, 255, 255},
	}
)

// Options say when and by what the masks were made.
type Options struct {
	Time time.Time // when the masks were made; required

	Algorithm string // name of the algorithm that made the masks; required
	Version   string // version of the algorithm; required

	Manufacturer string // "" means hcunet
	Model        string // of the device; "" means Algorithm
	Serial       string // of the device; "" means 1
	SeriesNumber int    // 0 means 901

	// Remark is written next to Notice, for example on which data the algorithm
	// was trained.
	Remark string

	// NoPlane leaves out position and orientation if the film has no frame of
	// reference.
	//
	// A radiograph has none, and then neither DICOM nor highdicom 0.28 requires a
	// position and an orientation. But OHIF refuses a segmentation without an
	// orientation, and assumes (1 0 0, 0 1 0) for a film that has none. So this
	// orientation and the position (0 0 0) are written, unless NoPlane is set.
	// Without a frame of reference they relate the segmentation only to its film.
	NoPlane bool
}

// notice returns Notice and the remark.
func (o *Options) notice() string {
	if o.Remark == "" {
		return Notice
	}
	return Notice + "; " + o.Remark
}

// check returns an error if objects cannot be made from film, masks and
// options.
func check(film *dicom.Film, masks []Mask, o *Options) error {
	if o == nil || o.Time.IsZero() || o.Algorithm == "" || o.Version == "" {
		return errors.New("derived: Options need Time, Algorithm and Version")
	}
	if o.SeriesNumber < 0 {
		return fmt.Errorf("derived: series number %d, want 1 or more, or 0 for 901", o.SeriesNumber)
	}
	for _, t := range []struct{ name, text string }{
		{"Algorithm", o.Algorithm}, {"Remark", o.Remark}, {"Version", o.Version}, {"Manufacturer", o.Manufacturer}, {"Model", o.Model}, {"Serial", o.Serial},
	} {
		if err := checkText(t.name, t.text); err != nil {
			return err
		}
	}
	for _, u := range []struct{ name, uid string }{
		{"SOP class", film.SOPClassUID}, {"SOP instance", film.SOPInstanceUID}, {"study", film.StudyUID}, {"series", film.SeriesUID},
	} {
		if !dicom.IsUID(u.uid) {
			return fmt.Errorf("derived: the film's %s UID is %.80q: an object made from the film could not refer to it", u.name, u.uid)
		}
	}
	if film.Rows < 1 || film.Columns < 1 || film.Rows > 0xFFFF || film.Columns > 0xFFFF {
		return fmt.Errorf("derived: the film has %d rows and %d columns, want 1 to 65535 of each", film.Rows, film.Columns)
	}
	if len(masks) == 0 || len(masks) > 0xFFFF {
		return fmt.Errorf("derived: %d masks, want 1 to 65535", len(masks))
	}
	for i, m := range masks {
		if m.Image == nil || m.Image.Rect.Dx() != film.Columns || m.Image.Rect.Dy() != film.Rows {
			size := "none"
			if m.Image != nil {
				size = fmt.Sprintf("%dx%d", m.Image.Rect.Dx(), m.Image.Rect.Dy())
			}
			return fmt.Errorf("derived: mask %d (%s) is %s, the film is %dx%d", i, m.Segment.Label, size, film.Columns, film.Rows)
		}
		if m.Segment.Label == "" {
			return fmt.Errorf("derived: mask %d has no label", i)
		}
		if err := checkText("Label", m.Segment.Label); err != nil {
			return err
		}
		for _, c := range []Code{m.Segment.Category, m.Segment.Type, m.Segment.Modifier} {
			if c != (Code{}) && (c.Value == "" || c.Scheme == "" || c.Meaning == "" || len(c.Value) > 16 || len(c.Scheme) > 16) {
				return fmt.Errorf("derived: mask %d (%s): code %+v, want value and scheme of 1 to 16 characters and a meaning", i, m.Segment.Label, c)
			}
			if err := errors.Join(checkText("Code", c.Value), checkText("Code", c.Scheme), checkText("Code", c.Meaning)); err != nil {
				return err
			}
		}
		if m.Segment.Category == (Code{}) || m.Segment.Type == (Code{}) {
			return fmt.Errorf("derived: mask %d (%s) needs the codes of its category and type", i, m.Segment.Label)
		}
	}
	return nil
}

func checkText(name, s string) error {
	if len([]rune(s)) > 64 || strings.ContainsAny(s, "\\\x00\n\r\x1b") {
		return fmt.Errorf("derived: %s is %.80q, want at most 64 characters without backslash or control character", name, s)
	}
	return nil
}

// uid returns a UID computed from parts: a UUID of version 8, made of a hash,
// below the root 2.25 (DICOM PS3.5, B.2).
func uid(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	sum := h.Sum(nil)[:16]
	sum[6], sum[8] = sum[6]&0x0F|0x80, sum[8]&0x3F|0x80
	return "2.25." + new(big.Int).SetBytes(sum).String()
}

// what returns the parts that identify an object of this kind.
func what(kind string, film *dicom.Film, masks []Mask, o *Options) []string {
	rest := *o
	rest.Time = time.Time{}
	parts := []string{kind, film.SOPInstanceUID, fmt.Sprint(film.Frame), o.Time.Format(time.RFC3339Nano), fmt.Sprintf("%+v", rest)}
	for _, m := range masks {
		parts = append(parts, fmt.Sprintf("%+v", m.Segment))
	}
	return append(parts, string(pack(film, masks)))
}

// each calls f for every pixel of m, row by row.
func each(m *image.Gray, f func(i int, in bool)) {
	w := m.Rect.Dx()
	for y := range m.Rect.Dy() {
		for x, v := range m.Pix[y*m.Stride : y*m.Stride+w] {
			f(y*w+x, v != 0)
		}
	}
}

// common adds the elements that both kinds of objects have, about patient,
// study, series, equipment and the object itself.
func common(set *part10.Set, film *dicom.Film, o *Options, class, instance, modality, description string) {
	date, clock := o.Time.Format("20060102"), o.Time.Format("150405.000000")

	set.Text(0x00080005, "CS", "ISO_IR 192") // UTF-8
	set.Text(0x00080012, "DA", date)
	set.Text(0x00080013, "TM", clock)
	set.Text(0x00080016, "UI", class)
	set.Text(0x00080018, "UI", instance)

	set.Text(0x00100010, "PN", text(string(film.PatientName)))
	set.Text(0x00100020, "LO", text(film.PatientID))
	set.Text(0x00100030, "DA", valid(string(film.BirthDate), "DA"))
	set.Text(0x00100040, "CS", valid(film.Sex, "M", "F", "O"))
	set.Known(0x00101010, "AS", age(film))

	set.Text(0x00080020, "DA", valid(film.StudyDate, "DA"))
	set.Text(0x00080030, "TM", valid(film.StudyTime, "TM"))
	set.Text(0x00080050, "SH", short(film.AccessionNumber))
	set.Text(0x00080090, "PN", text(string(film.ReferringPhysician)))
	set.Text(0x0020000D, "UI", film.StudyUID)
	set.Text(0x00200010, "SH", short(film.StudyID))

	set.Text(0x00080060, "CS", modality)
	set.Text(0x0008103E, "LO", description)
	set.Text(0x0020000E, "UI", uid(modality+" series", film.SOPInstanceUID, fmt.Sprint(film.Frame), o.Algorithm, o.Version))
	set.Text(0x00200011, "IS", fmt.Sprint(cmp.Or(o.SeriesNumber, 901)))
	set.Text(0x00200013, "IS", "1")

	set.Text(0x00080070, "LO", cmp.Or(o.Manufacturer, "hcunet"))
	set.Text(0x00081090, "LO", cmp.Or(o.Model, o.Algorithm))
	set.Text(0x00181000, "LO", cmp.Or(o.Serial, "1"))
	set.Text(0x00181020, "LO", o.Version)

	set.Text(0x00080023, "DA", date)
	set.Text(0x00080033, "TM", clock)
	set.Text(0x00200020, "CS", orientation(film))
	if film.Lossy { // once lossy, always lossy
		set.Text(0x00282110, "CS", "01")
		set.Known(0x00282112, "DS", valid(film.LossyRatio, "DS"))
		set.Known(0x00282114, "CS", valid(film.LossyMethod, "CS"))
	}
}

// reference returns a reference to the film, and to the frame if the film has
// several.
func reference(film *dicom.Film) *part10.Set {
	s := new(part10.Set)
	s.Text(0x00081150, "UI", film.SOPClassUID)
	s.Text(0x00081155, "UI", film.SOPInstanceUID)
	if film.Frames > 1 {
		s.Text(0x00081160, "IS", fmt.Sprint(film.Frame+1))
	}
	return s
}

// source returns a reference to the film as the source of an image.
func source(film *dicom.Film) *part10.Set {
	s := reference(film)
	s.Text(0x0028135A, "CS", "YES") // spatial locations preserved
	code(0x0040A170, Code{"121322", "DCM", "Source image for image processing operation"})(s)
	return s
}

// code returns a function that adds c as the sequence tag.
func code(tag uint32, c Code) func(*part10.Set) {
	return func(s *part10.Set) {
		it := new(part10.Set)
		it.Text(0x00080100, "SH", c.Value)
		it.Text(0x00080102, "SH", c.Scheme)
		it.Text(0x00080104, "LO", c.Meaning)
		s.Items(tag, it)
	}
}

// text returns s without characters that DICOM does not allow in a text, cut to 64
// characters.
func text(s string) string {
	r := []rune(strings.Map(func(r rune) rune {
		if r < ' ' || r == '\\' || r == 0x7F || r == 0xFFFD {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "")))
	return string(r[:min(len(r), 64)])
}

// short is text cut to 16 characters.
func short(s string) string {
	r := []rune(text(s))
	return string(r[:min(len(r), 16)])
}

// valid returns s if it is one of the values. A single value names a value
// representation (DA, TM, CS, DS), and then valid returns s if it fits that.
// Otherwise it returns "", which these attributes allow.
func valid(s string, values ...string) string {
	digits := func(layouts ...string) string {
		for _, l := range layouts {
			if _, err := time.Parse(l, s); err == nil {
				return s
			}
		}
		return ""
	}
	switch values[0] {
	case "DA":
		return digits("20060102")
	case "TM":
		return digits("150405", "1504", "15", "150405.000000", "150405.00000", "150405.0000", "150405.000", "150405.00", "150405.0")
	}
	if values[0] == "CS" || values[0] == "DS" {
		allowed := map[string]string{"CS": "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ ", "DS": "0123456789.+-eE "}[values[0]]
		for _, part := range strings.Split(s, `\`) {
			if len(part) > 16 || strings.Trim(part, allowed) != "" || len(s) > 1024 {
				return ""
			}
		}
		return s
	}
	if slices.Contains(values, s) {
		return s
	}
	return ""
}

// age returns the age of the patient in the form of the standard; films of the
// SIIM set have only a number of years.
func age(film *dicom.Film) string {
	years, ok := film.AgeYears()
	switch {
	case !ok:
		return ""
	case len(film.Age) == 4 && strings.ContainsAny(film.Age[3:], "DWMY"):
		return film.Age
	}
	return fmt.Sprintf("%03.0fY", min(years, 999))
}

// orientation returns the directions of rows and columns as letters if they are
// valid, else "".
func orientation(film *dicom.Film) string {
	row, column, ok := strings.Cut(film.PatientOrientation, `\`)
	if !ok || row == "" || column == "" || strings.Trim(row+column, "APRLHF") != "" || len(row) > 3 || len(column) > 3 {
		return ""
	}
	return film.PatientOrientation
}

// located reports whether the film has a position in a frame of reference.
func located(film *dicom.Film) bool {
	finite := func(v []float64) bool {
		return !slices.ContainsFunc(v, func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) })
	}
	return dicom.IsUID(film.FrameOfReferenceUID) && len(film.Position) == 3 && len(film.Orientation) == 6 &&
		finite(film.Position) && finite(film.Orientation)
}

package derived

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	upstream "github.com/suyashkumar/dicom"
	"github.com/suyashkumar/dicom/pkg/tag"

	"github.com/hcunet/hcunet/data/dicom"
)

func options() *Options {
	return &Options{Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Algorithm: "test net", Version: "1.2"}
}

// radiograph has no frame of reference; slice lies in one.
func radiograph(rows, columns int) *dicom.Film {
	f := &dicom.Film{
		Rows: rows, Columns: columns, Bits: 8, Pix8: make([]uint8, rows*columns), Frames: 1,
		SOPClassUID: "1.2.840.10008.5.1.4.1.1.1", SOPInstanceUID: "1.2.3.4.5", StudyUID: "1.2.3", SeriesUID: "1.2.3.4",
		PatientName: "Müller^Eva", PatientID: "P7", Sex: "F", Age: "38", BirthDate: "19880102", StudyDate: "20260101", StudyTime: "1011",
		StudyID: "S1", AccessionNumber: "A1", ReferringPhysician: "Weiß^R", PatientOrientation: `L\F`,
		RowSpacing: 0.143, ColumnSpacing: 0.15, Spacing: dicom.PixelSpacing,
	}
	for i := range f.Pix8 {
		f.Pix8[i] = uint8(i)
	}
	return f
}

func slice(rows, columns int) *dicom.Film {
	f := radiograph(rows, columns)
	f.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
	f.FrameOfReferenceUID, f.PositionReference, f.SliceThickness = "1.2.3.9", "SN", 2.5
	f.Position, f.Orientation = []float64{-100.5, 3, 1e-7}, []float64{1, 0, 0, 0, 0.6, -0.8}
	return f
}

// noise returns masks of random pixels.
func noise(f *dicom.Film, segments ...Segment) []Mask {
	rng := rand.New(rand.NewPCG(7, uint64(f.Rows)))
	var masks []Mask
	for _, s := range segments {
		m := image.NewGray(image.Rect(0, 0, f.Columns, f.Rows))
		for i := range m.Pix {
			m.Pix[i] = uint8(rng.IntN(2)) * 255
		}
		masks = append(masks, Mask{s, m})
	}
	return masks
}

func written(t testing.TB, how func(io.Writer, *dicom.Film, []Mask, *Options) error, f *dicom.Film, masks []Mask, o *Options) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, how(&b, f, masks, o))
	return b.Bytes()
}

// A set reads what was written through github.com/suyashkumar/dicom.
type set struct {
	t     testing.TB
	elems []*upstream.Element
}

func parse(t testing.TB, file []byte) set {
	t.Helper()
	ds, err := upstream.Parse(bytes.NewReader(file), int64(len(file)), nil, upstream.SkipPixelData())
	require.NoError(t, err)
	return set{t, ds.Elements}
}

// get returns the value of an element, nil if there is none.
func (s set) get(name string) any {
	info, err := tag.FindByKeyword(name)
	require.NoError(s.t, err, name)
	for _, e := range s.elems {
		if e.Tag == info.Tag {
			return e.Value.GetValue()
		}
	}
	return nil
}

// text returns the values of a text element with backslashes between them.
func (s set) text(name string) string {
	v, _ := s.get(name).([]string)
	return strings.Join(v, `\`)
}

// items returns the items of a sequence.
func (s set) items(name string) []set {
	v, _ := s.get(name).([]*upstream.SequenceItemValue)
	var out []set
	for _, it := range v {
		out = append(out, set{s.t, it.GetValue().([]*upstream.Element)})
	}
	return out
}

// item returns the only item of a sequence.
func (s set) item(name string) set {
	s.t.Helper()
	all := s.items(name)
	require.Len(s.t, all, 1, name)
	return all[0]
}

func (s set) code(name string) Code {
	it := s.item(name)
	return Code{it.text("CodeValue"), it.text("CodingSchemeDesignator"), it.text("CodeMeaning")}
}

// Masks of any size come back bit for bit through this library's reader.
func TestRoundTrip(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {1, 7}, {3, 5}, {8, 8}, {37, 53}, {9, 1001}, {64, 64}} {
		f := radiograph(size[0], size[1])
		masks := noise(f, Pneumothorax, Lungs, Pneumothorax)
		file := written(t, WriteSegmentation, f, masks, options())
		for i, m := range masks {
			got, err := dicom.Read(bytes.NewReader(file), &dicom.Options{Frame: i})
			require.NoError(t, err)
			require.Empty(t, got.Warnings)
			require.Equal(t, [4]int{size[0], size[1], 1, 3}, [4]int{got.Rows, got.Columns, got.Bits, got.Frames})
			require.Equal(t, m.Image.Pix, got.Gray().Pix, "%v, mask %d", size, i)
		}
		assert.Equal(t, 0, len(file)%2)
	}
	// A mask may be part of a larger picture.
	f := radiograph(3, 4)
	large := image.NewGray(image.Rect(0, 0, 9, 9))
	large.SetGray(5, 6, color.Gray{1})
	file := written(t, WriteSegmentation, f, []Mask{{Lungs, large.SubImage(image.Rect(4, 5, 8, 8)).(*image.Gray)}}, options())
	got, err := dicom.Read(bytes.NewReader(file), nil)
	require.NoError(t, err)
	assert.Equal(t, []uint8{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, got.Pix8)
}

// What OHIF and the libraries under it (cornerstone3D, dcmjs) refuse or crash on
// in segmentations, by the reports in their repositories.
func TestWhatOHIFRefuses(t *testing.T) {
	for name, f := range map[string]*dicom.Film{"radiograph": radiograph(37, 53), "slice": slice(37, 53)} {
		for _, segments := range [][]Segment{{Pneumothorax}, {Pneumothorax, Lungs}} {
			masks := noise(f, segments...)
			file := written(t, WriteSegmentation, f, masks, options())
			s := parse(t, file)
			for reason, holds := range map[string]func(t *testing.T){
				// OHIF/Viewers 4030, 3936, 2361: the film is found by this sequence alone.
				"no ReferencedSeriesSequence": func(t *testing.T) {
					r := s.item("ReferencedSeriesSequence")
					assert.Equal(t, f.SeriesUID, r.text("SeriesInstanceUID"))
					in := r.item("ReferencedInstanceSequence")
					assert.Equal(t, f.SOPInstanceUID, in.text("ReferencedSOPInstanceUID"))
					assert.Equal(t, f.SOPClassUID, in.text("ReferencedSOPClassUID"))
				},
				// OHIF/Viewers 1711: a segmentation in a study without its film.
				"another study": func(t *testing.T) { assert.Equal(t, f.StudyUID, s.text("StudyInstanceUID")) },
				// razorx89/pydicom-seg 16; and of a series OHIF shows the last object only.
				"no series of its own": func(t *testing.T) {
					series := s.text("SeriesInstanceUID")
					assert.True(t, dicom.IsUID(series))
					assert.NotEqual(t, f.SeriesUID, series)
					other := *f
					other.SOPInstanceUID = "1.2.3.4.6"
					assert.NotEqual(t, series, parse(t, written(t, WriteSegmentation, &other, masks, options())).text("SeriesInstanceUID"))
				},
				// razorx89/pydicom-seg 20, OHIF/Viewers 4645: a frame is put on the image
				// that its derivation names.
				"no SourceImageSequence in the derivation": func(t *testing.T) {
					frames := s.items("PerFrameFunctionalGroupsSequence")
					require.Len(t, frames, len(masks))
					for _, fr := range frames {
						d := fr.item("DerivationImageSequence")
						src := d.item("SourceImageSequence")
						assert.Equal(t, f.SOPInstanceUID, src.text("ReferencedSOPInstanceUID"))
						assert.Equal(t, f.SOPClassUID, src.text("ReferencedSOPClassUID"))
						assert.Equal(t, Code{"113076", "DCM", "Segmentation"}, d.code("DerivationCodeSequence"))
					}
				},
				// dcmjs up to 0.28 (OHIF 2) takes the source images of the whole for one of
				// each frame, and finds none for the second segment.
				"a SourceImageSequence of the whole": func(t *testing.T) {
					assert.Nil(t, s.get("SourceImageSequence"))
				},
				// OHIF/Viewers 2252, QIICR/dcmqi 428, dcmjs-org/dcmjs 177.
				"no ReferencedSegmentNumber in a frame": func(t *testing.T) {
					for i, fr := range s.items("PerFrameFunctionalGroupsSequence") {
						assert.Equal(t, []int{i + 1}, fr.item("SegmentIdentificationSequence").get("ReferencedSegmentNumber"))
					}
				},
				// OHIF/Viewers 2601: numbers that do not begin with 1 or have gaps, and labels.
				"segment numbers": func(t *testing.T) {
					all := s.items("SegmentSequence")
					require.Len(t, all, len(masks))
					for i, seg := range all {
						assert.Equal(t, []int{i + 1}, seg.get("SegmentNumber"))
						assert.Equal(t, segments[i].Label, seg.text("SegmentLabel"))
					}
				},
				// OHIF/Viewers 3939: loading hangs.
				"no RecommendedDisplayCIELabValue": func(t *testing.T) {
					for i, seg := range s.items("SegmentSequence") {
						lab := cielab(segments[i].Color)
						assert.Equal(t, lab[:], seg.get("RecommendedDisplayCIELabValue"))
					}
				},
				// OHIF/Viewers 1699.
				"not binary": func(t *testing.T) {
					assert.Equal(t, "BINARY", s.text("SegmentationType"))
					assert.Equal(t, []int{1}, s.get("BitsAllocated"))
				},
				// OHIF/Viewers 2500, 2869; cornerstone3D: "SEG frame is missing
				// ImageOrientationPatient", which takes (1 0 0, 0 1 0) for a film without.
				"no or another orientation": func(t *testing.T) {
					want := `1\0\0\0\1\0`
					if name == "slice" {
						want = `1\0\0\0\0.6\-0.8`
					}
					assert.Equal(t, want, s.item("SharedFunctionalGroupsSequence").item("PlaneOrientationSequence").text("ImageOrientationPatient"))
				},
				// OHIF/Viewers 2733: a frame whose position is not its image's.
				"another position": func(t *testing.T) {
					want := `0\0\0`
					if name == "slice" {
						want = `-100.5\3\1e-07`
					}
					for _, fr := range s.items("PerFrameFunctionalGroupsSequence") {
						assert.Equal(t, want, fr.item("PlanePositionSequence").text("ImagePositionPatient"))
					}
				},
				// OHIF/Viewers 4030, 5564.
				"another frame of reference": func(t *testing.T) {
					assert.Equal(t, f.FrameOfReferenceUID, s.text("FrameOfReferenceUID"))
				},
				// dcmjs-org/dcmjs 198, OHIF/Viewers 2345.
				"another size": func(t *testing.T) {
					assert.Equal(t, []int{f.Rows}, s.get("Rows"))
					assert.Equal(t, []int{f.Columns}, s.get("Columns"))
				},
				// OHIF/Viewers 2212: a multi-frame object that does not say so.
				"no NumberOfFrames": func(t *testing.T) {
					assert.Equal(t, fmt.Sprint(len(masks)), s.text("NumberOfFrames"))
				},
				// dcmjs-org/dcmjs 66 and 11: 37x53 pixels are no multiple of 8.
				"frames padded to bytes": func(t *testing.T) {
					bits := 37 * 53 * len(masks)
					pixels := file[len(file)-(bits+15)/16*2:]
					for i, m := range masks {
						for k, v := range m.Image.Pix {
							bit := 37*53*i + k
							require.Equal(t, v != 0, pixels[bit/8]>>(bit%8)&1 == 1)
						}
					}
					assert.Equal(t, "OB", string(file[len(file)-len(pixels)-8:][:2]))
				},
				// razorx89/pydicom-seg 20.
				"meta information without its length": func(t *testing.T) {
					assert.Equal(t, "\x02\x00\x00\x00UL\x04\x00", string(file[132:140]))
					n := int(file[140]) | int(file[141])<<8
					assert.Equal(t, "\x08\x00\x05\x00CS", string(file[144+n:][:6]))
					assert.Equal(t, s.text("SOPInstanceUID"), s.text("MediaStorageSOPInstanceUID"))
				},
			} {
				t.Run(fmt.Sprintf("%s, %d segments, %s", name, len(masks), reason), holds)
			}
		}
	}
}

func TestTerms(t *testing.T) {
	f := radiograph(5, 7)
	s := parse(t, written(t, WriteSegmentation, f, noise(f, Pneumothorax, Lungs), options()))
	segs := s.items("SegmentSequence")
	// DICOM PS3.16: CID 7150 for the categories, 6105 and 7192 for the types.
	assert.Equal(t, Code{"49755003", "SCT", "Morphologically Abnormal Structure"}, segs[0].code("SegmentedPropertyCategoryCodeSequence"))
	assert.Equal(t, Code{"36118008", "SCT", "Pneumothorax"}, segs[0].code("SegmentedPropertyTypeCodeSequence"))
	assert.Equal(t, Code{"91723000", "SCT", "Anatomical Structure"}, segs[1].code("SegmentedPropertyCategoryCodeSequence"))
	assert.Equal(t, Code{"39607008", "SCT", "Lung"}, segs[1].code("SegmentedPropertyTypeCodeSequence"))
	assert.Equal(t, Code{"51440002", "SCT", "Right and left"}, segs[1].item("SegmentedPropertyTypeCodeSequence").code("SegmentedPropertyTypeModifierCodeSequence"))
	for _, seg := range segs {
		a := seg.item("SegmentationAlgorithmIdentificationSequence")
		assert.Equal(t, [2]string{"test net", "1.2"}, [2]string{a.text("AlgorithmName"), a.text("AlgorithmVersion")})
		assert.Equal(t, Code{"123110", "DCM", "Artificial Intelligence"}, a.code("AlgorithmFamilyCodeSequence"))
		assert.Equal(t, Notice, seg.text("SegmentDescription"))
	}
	assert.Equal(t, [3]string{"hcunet", "test net", "1"}, [3]string{s.text("Manufacturer"), s.text("ManufacturerModelName"), s.text("DeviceSerialNumber")})
	assert.Equal(t, [4]string{"20260102", "030405.000006", "SEG", "901"},
		[4]string{s.text("ContentDate"), s.text("ContentTime"), s.text("Modality"), s.text("SeriesNumber")})

	index := s.items("DimensionIndexSequence")
	require.Len(t, index, 1)
	assert.Equal(t, []int{0x62, 0x0B}, index[0].get("DimensionIndexPointer"))
	for i, fr := range s.items("PerFrameFunctionalGroupsSequence") {
		assert.Equal(t, []int{i + 1}, fr.item("FrameContentSequence").get("DimensionIndexValues"))
	}
	f = slice(5, 7)
	s = parse(t, written(t, WriteSegmentation, f, noise(f, Pneumothorax, Lungs), options()))
	require.Len(t, s.items("DimensionIndexSequence"), 2)
	assert.Equal(t, []int{2, 1}, s.items("PerFrameFunctionalGroupsSequence")[1].item("FrameContentSequence").get("DimensionIndexValues"))
	m := s.item("SharedFunctionalGroupsSequence").item("PixelMeasuresSequence")
	assert.Equal(t, [2]string{`0.143\0.15`, "2.5"}, [2]string{m.text("PixelSpacing"), m.text("SliceThickness")})
}

// Without a plane the object is as highdicom 0.28 writes it for a radiograph.
func TestNoPlane(t *testing.T) {
	o := options()
	o.NoPlane = true
	f := radiograph(5, 7)
	s := parse(t, written(t, WriteSegmentation, f, noise(f, Pneumothorax), o))
	assert.Empty(t, s.item("SharedFunctionalGroupsSequence").elems)
	assert.Nil(t, s.items("PerFrameFunctionalGroupsSequence")[0].get("PlanePositionSequence"))
	f = slice(5, 7) // a film that has a plane keeps it
	s = parse(t, written(t, WriteSegmentation, f, noise(f, Pneumothorax), o))
	assert.NotNil(t, s.item("SharedFunctionalGroupsSequence").get("PlaneOrientationSequence"))
}

// The patient and the study are those of the film. Values that the standard does
// not allow are left empty or corrected.
func TestPatientAndStudy(t *testing.T) {
	for _, how := range []func(io.Writer, *dicom.Film, []Mask, *Options) error{WriteSegmentation, WriteCapture} {
		f := radiograph(5, 7)
		s := parse(t, written(t, how, f, noise(f, Pneumothorax), options()))
		for name, want := range map[string]string{
			"PatientName": "Müller^Eva", "PatientID": "P7", "PatientBirthDate": "19880102", "PatientSex": "F", "PatientAge": "038Y",
			"StudyInstanceUID": "1.2.3", "StudyDate": "20260101", "StudyTime": "1011", "StudyID": "S1", "AccessionNumber": "A1",
			"ReferringPhysicianName": "Weiß^R", "PatientOrientation": `L\F`, "LossyImageCompression": "00",
		} {
			assert.Equal(t, want, s.text(name), name)
		}
		f.PatientName, f.PatientID, f.BirthDate, f.Sex, f.Age = "a\x1b\\b\x00\xffc", dicomText(100), "2.1.88", "female", "38 years"
		f.StudyDate, f.StudyTime, f.StudyID, f.PatientOrientation = "today", "25", dicomText(20), "LF"
		f.Lossy, f.LossyMethod, f.LossyRatio = true, "ISO_10918_1", "12.5"
		s = parse(t, written(t, how, f, noise(f, Pneumothorax), options()))
		for name, want := range map[string]string{
			"PatientName": "abc", "PatientID": dicomText(64), "PatientBirthDate": "", "PatientSex": "", "PatientAge": "",
			"StudyDate": "", "StudyTime": "", "StudyID": dicomText(16), "PatientOrientation": "",
			"LossyImageCompression": "01", "LossyImageCompressionMethod": "ISO_10918_1", "LossyImageCompressionRatio": "12.5",
		} {
			assert.Equal(t, want, s.text(name), name)
		}
		f.Frames, f.Frame = 3, 1
		s = parse(t, written(t, how, f, noise(f, Pneumothorax), options()))
		if frames := s.items("PerFrameFunctionalGroupsSequence"); frames != nil {
			s = frames[0].item("DerivationImageSequence")
		}
		assert.Equal(t, "2", s.item("SourceImageSequence").text("ReferencedFrameNumber"))
	}
}

func dicomText(n int) string { return strings.Repeat("x", n) }

// The same input gives the same bytes; other input gives another instance.
func TestIdentifiers(t *testing.T) {
	f := radiograph(5, 7)
	masks := noise(f, Pneumothorax)
	ids := map[string]string{}
	note := func(name string, f *dicom.Film, masks []Mask, o *Options) {
		for kind, how := range map[string]func(io.Writer, *dicom.Film, []Mask, *Options) error{"seg": WriteSegmentation, "capture": WriteCapture} {
			file := written(t, how, f, masks, o)
			assert.Equal(t, file, written(t, how, f, masks, o))
			s := parse(t, file)
			for _, u := range []string{"SOPInstanceUID", "SeriesInstanceUID"} {
				assert.True(t, dicom.IsUID(s.text(u)), s.text(u))
				assert.True(t, strings.HasPrefix(s.text(u), "2.25."))
			}
			other, again := ids[s.text("SOPInstanceUID")]
			assert.False(t, again, "%s %s is %s", kind, name, other)
			ids[s.text("SOPInstanceUID")] = kind + " " + name
		}
	}
	note("as it is", f, masks, options())
	o := options()
	o.Time = o.Time.Add(time.Microsecond)
	note("later", f, masks, o)
	o = options()
	o.Version = "1.3"
	note("of another version", f, masks, o)
	other := *f
	other.SOPInstanceUID = "1.2.3.4.6"
	note("of another film", &other, masks, options())
	flipped := noise(f, Pneumothorax)
	flipped[0].Image.Pix[3] ^= 255
	note("of another mask", f, flipped, options())
	note("of another class", f, noise(f, Lungs), options())
}

// What highdicom 0.28.2 makes of the names of the colours:
//
//	CIELabColor.from_string("red").value
func TestCIELab(t *testing.T) {
	for c, want := range map[color.RGBA][3]int{
		{255, 0, 0, 255}:   {34886, 53484, 50172},
		{0, 255, 255, 255}: {59713, 20540, 29263},
		{255, 165, 0, 255}: {49107, 39048, 53188},
		{0, 255, 0, 255}:   {57498, 10747, 54274},
	} {
		got := cielab(c)
		for i := range got {
			assert.InDelta(t, want[i], got[i], 8, "%v", c) // of 65535; their matrix has fewer digits
		}
	}
	assert.Equal(t, [3]int{0, 32896, 32896}, cielab(color.RGBA{A: 255})) // 32896 = 0x8080 is 0
}

func TestOverlap(t *testing.T) {
	f := radiograph(1, 3)
	mask := func(pix ...uint8) Mask {
		return Mask{Lungs, &image.Gray{Pix: pix, Stride: 3, Rect: image.Rect(0, 0, 3, 1)}}
	}
	for _, c := range []struct {
		masks []Mask
		want  string
	}{
		{[]Mask{mask(1, 0, 0), mask(0, 1, 1)}, "NO"},
		{[]Mask{mask(1, 1, 0), mask(0, 1, 1)}, "YES"},
		{[]Mask{mask(1, 1, 1)}, "NO"},
	} {
		assert.Equal(t, c.want, parse(t, written(t, WriteSegmentation, f, c.masks, options())).text("SegmentsOverlap"))
	}
}

func TestCapture(t *testing.T) {
	f := radiograph(60, 400)
	m := image.NewGray(image.Rect(0, 0, 400, 60))
	for y := 10; y < 20; y++ {
		for x := 300; x < 310; x++ {
			m.SetGray(x, y, color.Gray{255})
		}
	}
	masks := []Mask{{Pneumothorax, m}}
	file := written(t, WriteCapture, f, masks, options())
	s := parse(t, file)
	for name, want := range map[string]string{
		"SOPClassUID": secondaryCapture, "PhotometricInterpretation": "RGB", "Modality": "OT", "ConversionType": "WSD",
		"ImageType": `DERIVED\SECONDARY`, "BurnedInAnnotation": "YES", "PixelSpacing": `0.143\0.15`,
		"DerivationDescription": "Outlines drawn by test net 1.2; research use, not for diagnosis",
	} {
		assert.Equal(t, want, s.text(name), name)
	}
	assert.Equal(t, f.SOPInstanceUID, s.item("SourceImageSequence").text("ReferencedSOPInstanceUID"))
	assert.Equal(t, f.SeriesUID, s.item("ReferencedSeriesSequence").text("SeriesInstanceUID"))

	pixels := file[len(file)-3*400*60:]
	orange, notice := 0, 0
	for i := range 400 * 60 {
		x, y := i%400, i/400
		p := [3]byte(pixels[3*i:])
		inside := x >= 300 && x < 310 && y >= 10 && y < 20
		edge := inside && (x == 300 || x == 309 || y == 10 || y == 19)
		switch {
		case edge:
			require.Equal(t, [3]byte{255, 140, 0}, p, "%d, %d", x, y)
			orange++
		case y >= 45 && x < 2+7*len(Notice): // the notice, black and white
			if p == [3]byte{255, 255, 255} {
				notice++
			}
		default:
			require.Equal(t, [3]byte{f.Pix8[i], f.Pix8[i], f.Pix8[i]}, p, "%d, %d", x, y)
		}
	}
	assert.Equal(t, 36, orange)
	assert.Greater(t, notice, 200) // 31 letters

	got, err := dicom.Read(bytes.NewReader(file), nil)
	require.NoError(t, err)
	require.Empty(t, got.Warnings)
	f.BurnedIn = "NO"
	assert.Equal(t, "NO", parse(t, written(t, WriteCapture, f, masks, options())).text("BurnedInAnnotation"))
	f.Pix8 = nil
	assert.ErrorContains(t, WriteCapture(io.Discard, f, masks, options()), "read it with its pixels")
	assert.NoError(t, WriteSegmentation(io.Discard, f, masks, options()))
}

// A remark stands above the notice and covers nothing of it.
func TestRemark(t *testing.T) {
	film := image.NewGray(image.Rect(0, 0, 1024, 1024))
	alone, both := Overlay(film, nil, ""), Overlay(film, nil, "trained on drawn phantoms, not on patients")
	line := 1024 - 2*15 // the letters are twice as large as in the font
	require.Equal(t, alone.Pix[line*alone.Stride:], both.Pix[line*both.Stride:])
	white := func(pix []uint8) int { return bytes.Count(pix, []byte{255, 255, 255, 255}) }
	require.Zero(t, white(alone.Pix[:line*alone.Stride]))
	require.Greater(t, white(both.Pix[:line*both.Stride]), 4*300) // 42 letters
}

func TestOutline(t *testing.T) {
	m := image.NewGray(image.Rect(0, 0, 7, 7))
	for i := range m.Pix {
		m.Pix[i] = 255
	}
	count := func(width int) (n int) {
		for _, e := range outline(m, width) {
			if e {
				n++
			}
		}
		return n
	}
	assert.Equal(t, 24, count(1)) // the border of the picture is an outline too
	assert.Equal(t, 40, count(2))
	assert.Equal(t, 49, count(9))
	m.SetGray(3, 3, color.Gray{})
	assert.Equal(t, 24+4, count(1)) // and so is that of a hole
}

func TestRefusals(t *testing.T) {
	for want, spoil := range map[string]func(f *dicom.Film, m []Mask, o *Options){
		"need Time, Algorithm and Version":              func(_ *dicom.Film, _ []Mask, o *Options) { o.Time = time.Time{} },
		"need Time, Algorithm":                          func(_ *dicom.Film, _ []Mask, o *Options) { o.Algorithm = "" },
		"series number -1":                              func(_ *dicom.Film, _ []Mask, o *Options) { o.SeriesNumber = -1 },
		"Version is":                                    func(_ *dicom.Film, _ []Mask, o *Options) { o.Version = "1\\2" },
		"the film's SOP instance UID is \"../x\"":       func(f *dicom.Film, _ []Mask, _ *Options) { f.SOPInstanceUID = "../x" },
		"the film's series UID is \"\"":                 func(f *dicom.Film, _ []Mask, _ *Options) { f.SeriesUID = "" },
		"has 0 rows":                                    func(f *dicom.Film, _ []Mask, _ *Options) { f.Rows = 0 },
		"mask 0 (Pneumothorax) is 7x5, the film is 8x5": func(f *dicom.Film, _ []Mask, _ *Options) { f.Columns = 8 },
		"mask 0 (Pneumothorax) is none":                 func(_ *dicom.Film, m []Mask, _ *Options) { m[0].Image = nil },
		"mask 0 has no label":                           func(_ *dicom.Film, m []Mask, _ *Options) { m[0].Segment.Label = "" },
		"Label is":                                      func(_ *dicom.Film, m []Mask, _ *Options) { m[0].Segment.Label = dicomText(65) },
		"needs the codes":                               func(_ *dicom.Film, m []Mask, _ *Options) { m[0].Segment.Type = Code{} },
		"of 1 to 16 characters":                         func(_ *dicom.Film, m []Mask, _ *Options) { m[0].Segment.Type.Scheme = "" },
	} {
		f, o := radiograph(5, 7), options()
		m := noise(f, Pneumothorax)
		spoil(f, m, o)
		assert.ErrorContains(t, WriteSegmentation(io.Discard, f, m, o), want)
		assert.ErrorContains(t, WriteCapture(io.Discard, f, m, o), want)
	}
	f := radiograph(5, 7)
	assert.ErrorContains(t, WriteSegmentation(io.Discard, f, nil, options()), "0 masks")
	assert.ErrorContains(t, WriteSegmentation(io.Discard, f, noise(f, Lungs), nil), "Options need")
}

// Whatever texts the file of a film has, the objects made from it can be read.
func FuzzTexts(f *testing.F) {
	f.Add("Müller^Eva", "P7", "038Y", `L\F`, "ISO_10918_1", "12.5", "1.2.3.9")
	f.Add("\x1b$B", "\\", "1234", `\`, "x", "1\\2", "0")
	f.Fuzz(func(t *testing.T, name, id, age, orientation, method, ratio, frame string) {
		film := slice(3, 5)
		film.PatientName, film.PatientID, film.Age, film.PatientOrientation = dicom.Private(name), id, age, orientation
		film.ReferringPhysician, film.BirthDate, film.StudyDate, film.StudyTime, film.Sex = dicom.Private(id), dicom.Private(age), age, age, age
		film.StudyID, film.AccessionNumber, film.PositionReference, film.FrameOfReferenceUID = name, id, name, frame
		film.Lossy, film.LossyMethod, film.LossyRatio, film.BurnedIn = true, method, ratio, method
		masks := noise(film, Pneumothorax, Lungs)
		for _, how := range []func(io.Writer, *dicom.Film, []Mask, *Options) error{WriteSegmentation, WriteCapture} {
			file := written(t, how, film, masks, options())
			got, err := dicom.Read(bytes.NewReader(file), nil)
			if err != nil || len(got.Warnings) > 0 {
				t.Fatalf("%v %q", err, got.Warnings)
			}
			parse(t, file)
		}
	})
}

func ExampleWriteSegmentation() {
	film := &dicom.Film{
		Rows: 2, Columns: 3, SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1",
		SOPInstanceUID: "2.25.1", StudyUID: "2.25.2", SeriesUID: "2.25.3", PatientID: "P7",
	}
	mask := image.NewGray(image.Rect(0, 0, 3, 2))
	mask.SetGray(1, 1, color.Gray{255})
	var file bytes.Buffer
	err := WriteSegmentation(&file, film, []Mask{{Pneumothorax, mask}},
		&Options{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Algorithm: "hcunet", Version: "1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := dicom.Read(&file, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(got.Modality, got.PatientID, got.Rows, got.Columns, got.Gray().Pix)
	// Output: SEG P7 2 3 [0 0 0 0 255 0]
}

package data

import (
	"bufio"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/picture"
)

// A Film is the image in a DICOM, PNG or JPEG file, and what the file says about
// it. A text that the file does not have is empty.
type Film struct {
	Image *picture.Image

	PatientID, Age, Sex, View, SOPInstanceUID string

	// RowSpacing and ColumnSpacing are the distances between rows and between
	// columns in mm; 0 if they are not known.
	RowSpacing, ColumnSpacing float64
	Spacing                   dicom.Spacing // where these distances were measured; "" if they are not known

	Warnings []string // what was lost or unusual when the file was read
}

// FilmKind is the format of a file that may hold a film.
type FilmKind int

const (
	NoFilm FilmKind = iota
	PictureFilm
	DICOMFilm
)

// KindOf returns the format of a file, from its first bytes or, if they do not
// tell, from its extension, so that a broken film is reported and not ignored.
func KindOf(path string) (FilmKind, error) {
	f, err := os.Open(path)
	if err != nil {
		return NoFilm, fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	head := make([]byte, dicom.HeadBytes)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return NoFilm, fmt.Errorf("data: %w", err)
	}
	if picture.Is(head[:n]) {
		return PictureFilm, nil
	}
	if dicom.Is(head[:n]) && !strings.EqualFold(filepath.Base(path), "DICOMDIR") {
		return DICOMFilm, nil
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".dcm", ".dicom":
		return DICOMFilm, nil
	case ".png", ".jpg", ".jpeg":
		return PictureFilm, nil
	}
	return NoFilm, nil
}

// Open reads the film in a file; see Read.
func (p *Preparer) Open(path string) (*Film, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	film, err := p.Read(f)
	if err != nil {
		return nil, fmt.Errorf("data: %s: %w", path, bare(err))
	}
	return film, nil
}

// Read reads a DICOM, PNG or JPEG file as a film that has the channels and bits
// that Image needs.
func (p *Preparer) Read(r io.Reader) (*Film, error) {
	b := bufio.NewReader(r)
	head, err := b.Peek(8)
	if len(head) == 0 && errors.Is(err, io.EOF) {
		return nil, errors.New("data: the file is empty")
	}
	if !picture.Is(head) {
		d, err := dicom.Read(b, &dicom.Options{ApplyVOI: p.p.VOI, MaxPixels: p.MaxPixels})
		if err != nil {
			return nil, err
		}
		return p.DICOM(d)
	}
	m, err := picture.Read(b, &picture.Options{Channels: p.task.Channels, MaxPixels: p.MaxPixels})
	if err != nil {
		return nil, err
	}
	return p.film(m), nil
}

// Film returns an image of the standard library as a film that has the channels and
// bits that Image needs.
func (p *Preparer) Film(img image.Image) (*Film, error) {
	m, err := picture.Of(img, p.task.Channels)
	if err != nil {
		return nil, err
	}
	return p.film(m), nil
}

func (p *Preparer) film(m *picture.Image) *Film {
	film := &Film{Image: p.depth(m)}
	if m.Faded {
		film.Warnings = append(film.Warnings, "its colours became grey, as the task has one channel")
	}
	return film
}

// DICOM converts a film that package dicom has read into one that has the channels
// and bits that Image needs. With a Preparation with VOI, it must have been read
// with Options.ApplyVOI.
func (p *Preparer) DICOM(d *dicom.Film) (*Film, error) {
	if n := len(d.Pix8) + len(d.Pix16); d.Rows < 1 || d.Columns < 1 || n != d.Rows*d.Columns {
		return nil, fmt.Errorf("data: a DICOM film of %dx%d pixels has %d values; read it with its pixels", d.Columns, d.Rows, n)
	}
	film := &Film{
		PatientID: d.PatientID, Age: d.Age, Sex: d.Sex, View: d.View, SOPInstanceUID: d.SOPInstanceUID,
		RowSpacing: d.RowSpacing, ColumnSpacing: d.ColumnSpacing, Spacing: d.Spacing,
		Warnings: slices.Clone(d.Warnings),
	}
	m := &picture.Image{Width: d.Columns, Height: d.Rows, Channels: 1}
	if p.p.Bits == 16 {
		pix := d.Gray16().Pix
		m.Pix16 = make([]uint16, len(pix)/2)
		for i := range m.Pix16 {
			m.Pix16[i] = uint16(pix[2*i])<<8 | uint16(pix[2*i+1])
		}
	} else {
		m.Pix8 = d.Gray().Pix
	}
	film.Image = m.Repeat(p.task.Channels)
	return film, nil
}

// depth returns the image with the bits of the preparation.
func (p *Preparer) depth(m *picture.Image) *picture.Image {
	if m.Bits() == p.p.Bits {
		return m
	}
	to := *m
	if p.p.Bits == 8 {
		to.Pix8, to.Pix16 = picture.Bytes(m.Pix16, p.p.Stretch16), nil
		return &to
	}
	to.Pix8, to.Pix16 = nil, make([]uint16, len(m.Pix8))
	for i, v := range m.Pix8 {
		to.Pix16[i] = 257 * uint16(v) // 255 becomes 65535
	}
	return &to
}

// bare removes the name of a package from an error, for an error that gets
// another package name in front.
func bare(err error) error {
	for _, name := range []string{"data: ", "picture: "} {
		if text, ok := strings.CutPrefix(err.Error(), name); ok {
			return &bareError{err, text}
		}
	}
	return err
}

type bareError struct {
	error
	text string
}

func (e *bareError) Error() string { return e.text }
func (e *bareError) Unwrap() error { return e.error }

// FileName returns the id of an image as the name of a file, without the
// extension. Ids come from files that cannot be trusted: it returns an error for
// an id that could lead out of the folder or make a hidden file.
func FileName(id string) (string, error) {
	const most = 200 // bytes; a file system allows 255, extension included
	switch {
	case id == "" || len(id) > most:
		return "", fmt.Errorf("data: the id %.40q has %d bytes; a file name may have 1 to %d", id, len(id), most)
	case strings.ContainsAny(id, `/\`) || id[0] == '.' || strings.ContainsFunc(id, unicode.IsControl) || !filepath.IsLocal(id+".png"):
		return "", fmt.Errorf("data: the id %.80q cannot be a file name: it has a slash, a control character or a dot in front; rename it", id)
	}
	return id, nil
}

package prepare

import (
	"encoding/csv"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/internal/text"
	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/internal/words"
)

// film is one film to prepare.
type film struct {
	split, name string // "train" or "test"; the name in the output folder
	path        string
	kind        data.FilmKind
	stamp       string // changes when the file changes
	patient     string // from the patients file
	label       label
}

// label is the source of the mask of a film: a picture or rows of a CSV. Without
// either, the mask is empty.
type label struct {
	path     string
	table    *maskcsv.Table
	id       string // id of the film in the table
	positive bool   // a row has runs
	stamp    string // changes when the mask does
}

// empty returns whether the mask is empty, without drawing it.
func (l *label) empty() bool { return l.path == "" && !l.positive }

func (f *film) key() string { return f.split + "/" + f.name }

// plan returns the films with their labels, sorted by key. Films and labels
// that do not match are listed in sum or are an error.
func plan(opt *Options, sum *Summary) ([]*film, error) {
	train, err := find(data.TrainDir, opt.Images)
	if err != nil {
		return nil, err
	}
	test, err := find(data.TestDir, opt.Test)
	if err != nil {
		return nil, err
	}
	switch {
	case opt.RLE != "" && len(train) > 0:
		err = labelFromRuns(opt, train, sum)
	case opt.Masks != "" && len(train) > 0:
		err = labelFromMasks(opt, train, sum)
	}
	if err != nil {
		return nil, err
	}
	if opt.Unlabelled == Skip {
		train = slices.DeleteFunc(train, func(f *film) bool { return slices.Contains(sum.Unlabelled, f.path) })
	}
	films := append(train, test...)
	slices.SortFunc(films, func(a, b *film) int { return strings.Compare(a.key(), b.key()) })
	for i := 1; i < len(films); i++ {
		if a, b := films[i-1], films[i]; a.key() == b.key() {
			return nil, fmt.Errorf("prepare: %s and %s have the same name; rename or leave out one of them", a.path, b.path)
		}
	}
	return films, readPatientList(opt.Patients, films)
}

// find returns the films in files and folders.
func find(split string, sources []string) ([]*film, error) {
	var films []*film
	for _, src := range sources {
		n := len(films)
		// The folder itself may be a link; WalkDir would not follow it.
		root, err := filepath.EvalSymlinks(src)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("prepare: no file or folder %s; name one that holds DICOM, PNG or JPEG films", src)
		} else if err != nil {
			return nil, fmt.Errorf("prepare: %w", err)
		}
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if strings.HasPrefix(d.Name(), ".") && path != root {
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			if d.IsDir() {
				return nil
			}
			kind, err := data.KindOf(path)
			if err != nil || kind == data.NoFilm {
				return err
			}
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			films = append(films, &film{
				split: split,
				name:  stem(d.Name()),
				path:  filepath.Join(src, strings.TrimPrefix(path, root)),
				kind:  kind,
				stamp: stampOf(st),
			})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("prepare: %w", err)
		}
		if len(films) == n {
			return nil, fmt.Errorf("prepare: %s holds no DICOM, PNG or JPEG file", src)
		}
	}
	return films, nil
}

func stampOf(st fs.FileInfo) string {
	return fmt.Sprintf("%d bytes %d ns", st.Size(), st.ModTime().UnixNano())
}

// stem returns a file name without its extension. The last part of a UID, such
// as ".958951", is not an extension.
func stem(name string) string {
	switch ext := filepath.Ext(name); strings.ToLower(ext) {
	case ".dcm", ".dicom", ".png", ".jpg", ".jpeg":
		return strings.TrimSuffix(name, ext)
	}
	return name
}

// labelFromRuns sets the label of each film to its rows in the CSV.
func labelFromRuns(opt *Options, films []*film, sum *Summary) error {
	table, err := maskcsv.Open(opt.RLE, &maskcsv.Options{Width: opt.RLESize, Height: opt.RLESize})
	if err != nil {
		return err
	}
	for _, w := range table.Warnings {
		sum.Warnings = append(sum.Warnings, bareError{w, ""}.Error())
	}
	used := make(map[string]bool, len(films))
	for _, f := range films {
		rows := table.Rows(f.name)
		if rows == nil && f.kind == data.DICOMFilm {
			// A renamed file still contains its UID. A file that cannot be read
			// gives an error later, when it is prepared.
			if d, err := dicom.Open(f.path, &dicom.Options{HeaderOnly: true}); err == nil {
				if rows = table.Rows(d.SOPInstanceUID); rows != nil {
					if f.name, err = data.FileName(d.SOPInstanceUID); err != nil {
						return fmt.Errorf("prepare: %s: its SOP instance UID names its files: %w", f.path, bareError{err, ""})
					}
				}
			}
		}
		if rows == nil {
			sum.Unlabelled = append(sum.Unlabelled, f.path)
			continue
		}
		used[f.name] = true
		h := fnv.New64a()
		for _, r := range rows {
			io.WriteString(h, r.Runs+"\n")
		}
		f.label = label{table: table, id: f.name, positive: table.Positive(f.name), stamp: fmt.Sprintf("runs %x", h.Sum64())}
	}
	for _, id := range table.IDs {
		if !used[id] {
			sum.Missing = append(sum.Missing, id)
		}
	}
	return unlabelled(opt, films, sum, "row in "+opt.RLE)
}

// labelFromMasks sets the label of each film to the mask picture with its name.
func labelFromMasks(opt *Options, films []*film, sum *Summary) error {
	masks, err := find(data.MasksDir, []string{opt.Masks})
	if err != nil {
		return err
	}
	byName := map[string]*film{}
	for _, m := range masks {
		if other := byName[m.name]; other != nil {
			return fmt.Errorf("prepare: masks %s and %s have the same name; rename or leave out one of them", other.path, m.path)
		}
		byName[m.name] = m
	}
	used := map[string]bool{}
	for _, f := range films {
		m := byName[f.name]
		if m == nil {
			sum.Unlabelled = append(sum.Unlabelled, f.path)
			continue
		}
		if m.path == f.path {
			return fmt.Errorf("prepare: %s is both an image and its mask; keep images and masks in separate folders", f.path)
		}
		used[f.name] = true
		f.label = label{path: m.path, stamp: m.stamp}
	}
	for _, m := range masks {
		if !used[m.name] {
			sum.Missing = append(sum.Missing, m.path)
		}
	}
	return unlabelled(opt, films, sum, "mask in "+opt.Masks)
}

// unlabelled returns an error if films have no label and opt.Unlabelled is
// Refuse, and always if no film has one.
func unlabelled(opt *Options, films []*film, sum *Summary, what string) error {
	n := len(sum.Unlabelled)
	if n == len(films) {
		return fmt.Errorf("prepare: none of the %d films has a %s; the first film is %s: are these the labels of these films?", n, what, films[0].path)
	}
	if n > 0 && opt.Unlabelled == Refuse {
		return fmt.Errorf("prepare: %d of %d films have no %s: %s; leave them out with -unlabelled skip, or give them empty masks with -unlabelled empty",
			n, len(films), what, words.Some(sum.Unlabelled, 5))
	}
	return nil
}

// readPatientList reads Options.Patients into films.
func readPatientList(path string, films []*film) error {
	if path == "" {
		return nil
	}
	f, err := text.Open(path)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.TrimLeadingSpace = true
	rows, err := r.ReadAll()
	if err != nil {
		return fmt.Errorf("prepare: %s: %w", path, err)
	}
	if len(rows) < 2 {
		return fmt.Errorf("prepare: %s has no rows; wanted a header with the columns image and patient, and a row for each image", path)
	}
	image, patient := slices.Index(rows[0], "image"), slices.Index(rows[0], "patient")
	if image < 0 || patient < 0 {
		return fmt.Errorf("prepare: %s: wanted the columns image and patient, got %s", path, strings.Join(rows[0], ","))
	}
	of := map[string]string{}
	for _, row := range rows[1:] {
		of[row[image]] = row[patient]
	}
	for _, f := range films {
		f.patient = of[f.name]
	}
	return nil
}

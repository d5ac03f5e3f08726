package data

import (
	"bytes"
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

	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/picture"
)

type fileKind int

const (
	otherFile fileKind = iota
	dicomFile
	pictureFile
)

// film is one thing to be prepared.
type film struct {
	split, name string // "train" or "test"; the name in the output folder
	path        string
	kind        fileKind
	stamp       string // changes when the file changes
	patient     string // from the patients file
	label       label
}

// label is where a film's mask comes from: a picture or rows of a CSV; neither is
// an empty mask.
type label struct {
	path     string
	table    *MaskTable
	positive bool   // a row has runs
	stamp    string // changes when the mask does
}

// empty says that there is no mask, without drawing it.
func (l *label) empty() bool { return l.path == "" && !l.positive }

func (f *film) key() string { return f.split + "/" + f.name }

// plan finds the films and the label of each, sorted by key, and puts what does
// not fit together into sum or into an error.
func plan(opt *PrepareOptions, sum *Summary) ([]*film, error) {
	train, err := find(TrainDir, opt.Images)
	if err != nil {
		return nil, err
	}
	test, err := find(TestDir, opt.Test)
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
			return nil, fmt.Errorf("data: %s and %s have one name; rename or leave out one of them", a.path, b.path)
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
			return nil, fmt.Errorf("data: no file or folder %s; name one that holds DICOM, PNG or JPEG films", src)
		} else if err != nil {
			return nil, fmt.Errorf("data: %w", err)
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
			kind, err := kindOf(path)
			if err != nil || kind == otherFile {
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
			return nil, fmt.Errorf("data: %w", err)
		}
		if len(films) == n {
			return nil, fmt.Errorf("data: %s holds no DICOM, PNG or JPEG file", src)
		}
	}
	return films, nil
}

func stampOf(st fs.FileInfo) string {
	return fmt.Sprintf("%d bytes %d ns", st.Size(), st.ModTime().UnixNano())
}

// kindOf looks at a file's first bytes, or its extension where they say nothing:
// a broken film is to be reported, not passed over.
func kindOf(path string) (fileKind, error) {
	f, err := os.Open(path)
	if err != nil {
		return otherFile, err
	}
	defer f.Close()
	head := make([]byte, 132)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return otherFile, err
	}
	head = head[:n]
	if picture.Is(head) {
		return pictureFile, nil
	}
	if n == 132 && bytes.Equal(head[128:], []byte("DICM")) && !strings.EqualFold(filepath.Base(path), "DICOMDIR") {
		return dicomFile, nil
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".dcm", ".dicom":
		return dicomFile, nil
	case ".png", ".jpg", ".jpeg":
		return pictureFile, nil
	}
	return otherFile, nil
}

// stem returns a file name without its extension. A UID ends in ".958951", which
// is none.
func stem(name string) string {
	switch ext := filepath.Ext(name); strings.ToLower(ext) {
	case ".dcm", ".dicom", ".png", ".jpg", ".jpeg":
		return strings.TrimSuffix(name, ext)
	}
	return name
}

// labelFromRuns gives each film its rows of the CSV.
func labelFromRuns(opt *PrepareOptions, films []*film, sum *Summary) error {
	table, err := OpenMasks(opt.RLE, &MaskOptions{Width: opt.RLESize, Height: opt.RLESize})
	if err != nil {
		return err
	}
	for _, w := range table.Warnings {
		sum.Warnings = append(sum.Warnings, bareError{w, ""}.Error())
	}
	used := make(map[string]bool, len(films))
	for _, f := range films {
		rows := table.Rows(f.name)
		if rows == nil && f.kind == dicomFile {
			// A renamed file still knows its UID. One that cannot be read is found
			// out when its turn comes.
			if d, err := dicom.Open(f.path, &dicom.Options{HeaderOnly: true}); err == nil {
				if rows = table.Rows(d.SOPInstanceUID); rows != nil {
					f.name = d.SOPInstanceUID
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
		f.label = label{table: table, positive: table.Positive(f.name), stamp: fmt.Sprintf("runs %x", h.Sum64())}
	}
	for _, id := range table.IDs {
		if !used[id] {
			sum.Missing = append(sum.Missing, id)
		}
	}
	return unlabelled(opt, films, sum, "row in "+opt.RLE)
}

// labelFromMasks gives each film the mask picture of its name.
func labelFromMasks(opt *PrepareOptions, films []*film, sum *Summary) error {
	masks, err := find(MasksDir, []string{opt.Masks})
	if err != nil {
		return err
	}
	byName := map[string]*film{}
	for _, m := range masks {
		if other := byName[m.name]; other != nil {
			return fmt.Errorf("data: masks %s and %s have one name; rename or leave out one of them", other.path, m.path)
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
			return fmt.Errorf("data: %s is both an image and its mask; keep images and masks in folders of their own", f.path)
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

// unlabelled refuses films without labels if it is told to, and a set of labels
// that belongs to none of the films in any case.
func unlabelled(opt *PrepareOptions, films []*film, sum *Summary, what string) error {
	n := len(sum.Unlabelled)
	if n == len(films) {
		return fmt.Errorf("data: none of the %d films has a %s; the first film is %s: are these the labels of these films?", n, what, films[0].path)
	}
	if n > 0 && opt.Unlabelled == Refuse {
		return fmt.Errorf("data: %d of %d films have no %s: %s; leave them out with -unlabelled skip, or take their masks as empty with -unlabelled empty",
			n, len(films), what, some(sum.Unlabelled, 5))
	}
	return nil
}

// some lists up to n names and says how many more there are.
func some(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}

// readPatientList reads PrepareOptions.Patients into films.
func readPatientList(path string, films []*film) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.TrimLeadingSpace = true
	rows, err := r.ReadAll()
	if err != nil {
		return fmt.Errorf("data: %s: %w", path, err)
	}
	if len(rows) == 0 {
		return fmt.Errorf("data: %s is empty; wanted a header with the columns image and patient", path)
	}
	image, patient := slices.Index(rows[0], "image"), slices.Index(rows[0], "patient")
	if image < 0 || patient < 0 {
		return fmt.Errorf("data: %s: wanted the columns image and patient, got %s", path, strings.Join(rows[0], ","))
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

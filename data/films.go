package data

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hcunet/hcunet/data/resize"
)

// filmFacts holds what the films file says about one image.
type filmFacts struct {
	patient  string
	levels   int
	geometry resize.Geometry // without the size of the image
}

// maxFilmSide is the largest side that the file may have: films with more pixels
// are never read.
const maxFilmSide = 1 << 27

// readFilms reads the films file and returns the facts of each image, with the
// key "train/NAME" or "test/NAME". Without a file it returns none. The columns
// width, height, fit and levels may be missing, for example in a file made by
// hand.
func readFilms(path string) (map[string]filmFacts, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	const remedy = "delete it, or prepare the folder again"
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	head, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("data: %s: %w; %s", path, err, remedy)
	}
	column := func(name string) int { return slices.Index(head, name) }
	split, name, patient := column("split"), column("name"), column("patient")
	if split < 0 || name < 0 || patient < 0 {
		return nil, fmt.Errorf("data: %s: wanted columns split, name and patient, got %s; %s", path, strings.Join(head, ","), remedy)
	}
	films := map[string]filmFacts{}
	for {
		row, err := r.Read()
		if err == io.EOF {
			return films, nil
		}
		if err != nil {
			return nil, fmt.Errorf("data: %s: %w; %s", path, err, remedy)
		}
		line, _ := r.FieldPos(0)
		if len(row) != len(head) {
			return nil, fmt.Errorf("data: %s:%d: %d columns, wanted %d; %s", path, line, len(row), len(head), remedy)
		}
		facts := filmFacts{patient: row[patient]}
		for what, to := range map[string]*int{"width": &facts.geometry.FilmWidth, "height": &facts.geometry.FilmHeight, "levels": &facts.levels} {
			at := column(what)
			if at < 0 || row[at] == "" {
				continue
			}
			if *to, err = strconv.Atoi(row[at]); err != nil || *to < 1 || *to > maxFilmSide {
				return nil, fmt.Errorf("data: %s:%d: %s %q; wanted a number from 1 to %d; %s", path, line, what, row[at], maxFilmSide, remedy)
			}
		}
		if at := column("fit"); at >= 0 && row[at] != "" {
			if err := facts.geometry.Fit.UnmarshalText([]byte(row[at])); err != nil {
				return nil, fmt.Errorf("data: %s:%d: %w; %s", path, line, err, remedy)
			}
		}
		films[row[split]+"/"+row[name]] = facts
	}
}

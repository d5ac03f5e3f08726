// Package maskcsv reads and writes CSV files of run-length masks: the training file
// and the submissions of the SIIM-ACR challenge, and files like them.
package maskcsv

import (
	"encoding/csv"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/hcunet/hcunet/data/internal/text"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/rle"
)

// A RowError says what is wrong with a CSV file, and where.
type RowError struct {
	File   string // "" if it was read from an io.Reader
	Line   int    // from 1
	Column int    // in bytes from 1, without the byte-order mark
	Err    error
}

func (e *RowError) Error() string {
	return fmt.Sprintf("maskcsv: %sline %d, column %d: %v", prefix(e.File), e.Line, e.Column, e.Err)
}

func (e *RowError) Unwrap() error { return e.Err }

// Warnings about a row of a mask CSV. The row is used nevertheless.
var (
	ErrDuplicateRow = errors.New("the same image and the same runs as an earlier row")
	ErrEmptyAndNot  = errors.New("the image has a row without runs and one with runs")
)

// Options say how a mask CSV is read; nil means all defaults, for the official
// training file of the SIIM-ACR challenge.
type Options struct {
	ID, Runs string      // names of the columns; "" means ImageId and EncodedPixels
	RLE      rle.Options // format of the runs; Kernel is not allowed

	// Width and Height are the size of every image in pixels. If they are set,
	// runs outside the image are found when the file is read; otherwise only
	// when the mask is drawn.
	Width, Height int
}

// A Row is one row of a mask CSV. An image has one or more of them, and its
// mask is their union.
type Row struct {
	ID   string // of the image
	Runs string // run-length text; "" if there is no mask, whatever the file says
	Line int    // in the file, from 1; 0 for a row that was not read from a file

	column int // of Runs
}

// A Table is the content of a mask CSV.
type Table struct {
	IDs []string // of the images, in the order of their first rows

	// Warnings are about rows that are suspicious but not wrong, in the order
	// of the file. Each wraps ErrDuplicateRow or ErrEmptyAndNot.
	Warnings []*RowError

	file string
	opt  Options
	rows map[string][]Row
}

// Open reads a mask CSV from a file; see Read.
func Open(path string, opt *Options) (*Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("maskcsv: %w", err)
	}
	defer f.Close()
	return read(f, path, opt)
}

// Read reads a CSV of run-length masks, one or more rows per image, such as
// the official train-rle.csv or a submission.
//
// The first line may be a header, with the columns in any order and with additional
// columns. It is an error if the first line names neither column and its second field
// cannot be runs. Without a header, a row is id and runs. Spaces around fields and a
// UTF-8 byte-order mark are ignored. "-1" and an empty field both mean no mask. A
// gzipped file is unpacked. A file without rows is an error, and so is UTF-16. The
// error for a wrong row is a *RowError; if the runs are wrong, it wraps an
// *rle.SyntaxError and gives the column of the wrong number.
func Read(r io.Reader, opt *Options) (*Table, error) { return read(r, "", opt) }

func read(r io.Reader, file string, opt *Options) (*Table, error) {
	t := &Table{file: file, rows: map[string][]Row{}}
	if opt != nil {
		t.opt = *opt
	}
	pixels, err := t.opt.complete()
	if err != nil {
		return nil, err
	}
	plain, err := text.Reader(r)
	if err != nil {
		return nil, t.readError(err)
	}
	in := csv.NewReader(plain)
	in.FieldsPerRecord = -1
	in.TrimLeadingSpace = true
	in.ReuseRecord = true

	layout := columns{id: 0, runs: 1, n: 2}
	for first := true; ; first = false {
		record, err := in.Read()
		if err == io.EOF && len(t.IDs) == 0 {
			return nil, fmt.Errorf("maskcsv: %sthere is no row with an image and its runs", prefix(file))
		} else if err == io.EOF {
			return t, nil
		} else if err != nil {
			return nil, t.readError(err)
		}
		if first {
			header, err := t.header(record)
			if err != nil {
				return nil, t.wrong(in, 0, 0, err)
			}
			if header != nil {
				layout = *header
				continue
			}
		}
		if len(record) != layout.n {
			return nil, t.wrong(in, 0, 0, fmt.Errorf("a row of %d fields; want %d, as %s,%s", len(record), layout.n, t.opt.ID, t.opt.Runs))
		}
		row := Row{ID: strings.TrimSpace(record[layout.id]), Runs: strings.TrimSpace(record[layout.runs])}
		row.Line, row.column = in.FieldPos(layout.runs)
		if err := checkID(row.ID); err != nil {
			return nil, t.wrong(in, layout.id, 0, err)
		}
		if row.Runs == "-1" {
			row.Runs = ""
		}
		if row.Runs != "" {
			if _, err := rle.Parse(row.Runs, pixels, &t.opt.RLE); err != nil {
				return nil, t.wrongRuns(row, err)
			}
		}
		t.add(row)
	}
}

// checkID returns an error if id cannot be the id of an image. A line break in
// quotes is legal CSV, but CSV readers change it, and it should not be in a file
// name.
func checkID(id string) error {
	switch {
	case id == "":
		return errors.New("no image id")
	case strings.ContainsFunc(id, unicode.IsControl):
		return fmt.Errorf("the image id %.80q holds a control character or line break", id)
	}
	return nil
}

// complete sets the defaults and returns the number of pixels of an image.
func (o *Options) complete() (pixels int, err error) {
	if o.RLE.Kernel {
		return 0, errors.New("maskcsv: a mask CSV cannot be read with rle.Options.Kernel, because it hides errors in runs")
	}
	if o.ID == "" {
		o.ID = "ImageId"
	}
	if o.Runs == "" {
		o.Runs = "EncodedPixels"
	}
	switch {
	case o.Width == 0 && o.Height == 0:
		return rle.MaxPixels, nil
	case o.Width <= 0 || o.Height <= 0 || o.Width > rle.MaxPixels/o.Height:
		return 0, fmt.Errorf("maskcsv: images of %dx%d pixels; want both positive, or both 0 for unknown", o.Width, o.Height)
	}
	return o.Width * o.Height, nil
}

// columns holds the indices of the id and of the runs in a row, and the number
// n of fields.
type columns struct{ id, runs, n int }

// header returns the columns that the first line names, or nil if the line is a
// row.
func (t *Table) header(record []string) (*columns, error) {
	c := columns{-1, -1, len(record)}
	for i, field := range record {
		switch field = strings.TrimSpace(field); {
		case strings.EqualFold(field, t.opt.ID):
			c.id = i
		case strings.EqualFold(field, t.opt.Runs):
			c.runs = i
		}
	}
	switch {
	case c.id >= 0 && c.runs >= 0:
		return &c, nil
	case c.id < 0 && c.runs < 0 && len(record) > 1 && strings.Trim(record[1], "-0123456789 ") == "":
		return nil, nil
	}
	return nil, fmt.Errorf("the first line is neither a header with %s and %s nor a row of id and runs: %.80q",
		t.opt.ID, t.opt.Runs, strings.Join(record, ","))
}

// add appends a row, and a warning if the row is suspicious.
func (t *Table) add(row Row) {
	earlier := t.rows[row.ID]
	if earlier == nil {
		t.IDs = append(t.IDs, row.ID)
	}
	for _, e := range earlier {
		var what error
		switch {
		case e.Runs == row.Runs:
			what = ErrDuplicateRow
		case e.Runs == "" || row.Runs == "":
			what = ErrEmptyAndNot
		default:
			continue
		}
		t.Warnings = append(t.Warnings, &RowError{t.file, row.Line, row.column,
			fmt.Errorf("image %s: %w, line %d", row.ID, what, e.Line)})
		break
	}
	t.rows[row.ID] = append(earlier, row)
}

// wrong returns an error about a field of the last row read.
func (t *Table) wrong(in *csv.Reader, field, offset int, err error) error {
	line, column := in.FieldPos(field)
	return &RowError{t.file, line, column + offset, err}
}

func (t *Table) wrongRuns(row Row, err error) error {
	column := row.column
	var syntax *rle.SyntaxError
	if errors.As(err, &syntax) {
		column += syntax.Offset
	}
	return &RowError{t.file, row.Line, column, fmt.Errorf("image %s: %w", row.ID, err)}
}

// readError turns an error of encoding/csv into a *RowError, and puts the name
// of the package in front of any other error.
func (t *Table) readError(err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return &RowError{t.file, parse.Line, parse.Column, parse.Err}
	}
	if t.file != "" {
		return fmt.Errorf("maskcsv: %s: %w", t.file, err)
	}
	return fmt.Errorf("maskcsv: reading a mask CSV: %w", err)
}

// Rows returns the rows of an image, nil if it has none.
func (t *Table) Rows(id string) []Row { return t.rows[id] }

// Positive returns whether an image has any runs.
func (t *Table) Positive(id string) bool {
	for _, r := range t.rows[id] {
		if r.Runs != "" {
			return true
		}
	}
	return false
}

// Mask returns the mask of an image of that size, with the values 0 and 255. It
// is the union of the image's rows. It returns an error if there is no row, and a
// *RowError if a row leaves the image.
func (t *Table) Mask(id string, width, height int) (*image.Gray, error) {
	rows := t.rows[id]
	if rows == nil {
		return nil, fmt.Errorf("maskcsv: %sno row for image %s", prefix(t.file), id)
	}
	m, err := rle.Decode("", width, height, nil)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if err := rle.DecodeInto(m.Pix, r.Runs, width, height, &t.opt.RLE); err != nil {
			return nil, t.wrongRuns(r, err)
		}
	}
	return m, nil
}

func prefix(file string) string {
	if file == "" {
		return ""
	}
	return file + ": "
}

// WriteSubmission writes rows in the format of the challenge: the header
// "ImageId,EncodedPixels", then one line per image, with "-1" if Runs is "". It
// returns an error if an id is missing, occurs twice, has spaces around it or
// contains control characters, or if the runs are not in the SIIM-ACR format.
func WriteSubmission(w io.Writer, rows []Row) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{"ImageId", "EncodedPixels"}); err != nil {
		return fmt.Errorf("maskcsv: submission: %w", err)
	}
	seen := make(map[string]int, len(rows))
	for i, r := range rows {
		first, twice := seen[r.ID]
		switch {
		case checkID(r.ID) != nil || r.ID != strings.TrimSpace(r.ID):
			return fmt.Errorf("maskcsv: submission: row %d has the id %q", i, r.ID)
		case twice:
			return fmt.Errorf("maskcsv: submission: image %s in rows %d and %d; want one row per image", r.ID, first, i)
		}
		seen[r.ID] = i
		runs := strings.TrimSpace(r.Runs)
		if _, err := rle.Parse(runs, rle.MaxPixels, nil); err != nil {
			return fmt.Errorf("maskcsv: submission: image %s: %w", r.ID, err)
		}
		if runs == "" {
			runs = "-1"
		}
		if err := out.Write([]string{r.ID, runs}); err != nil {
			return fmt.Errorf("maskcsv: submission: %w", err)
		}
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("maskcsv: submission: %w", err)
	}
	return nil
}

// SaveSubmission writes rows to a file as WriteSubmission does. The file is
// written completely or not at all.
func SaveSubmission(path string, rows []Row) error {
	return atomicfile.Write(path, func(w io.Writer) error { return WriteSubmission(w, rows) })
}

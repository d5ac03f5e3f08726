package phantom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"io/fs"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/rle"
	"golang.org/x/sync/errgroup"
)

// Names in the folder that Write makes. They are those of the SIIM-ACR
// download, plus the runs of the test films, which the challenge did not
// publish.
const (
	TrainDir   = "dicom-images-train"
	TestDir    = "dicom-images-test"
	TrainRuns  = "train-rle.csv"
	TestRuns   = "test-rle.csv"
	ReadmeFile = "README.txt"
)

// mostFilms is the largest number of films: their numbers have five digits.
const mostFilms = 99999

// Options are the options of Write; nil means DefaultOptions.
type Options struct {
	Train   int    // films with rows in train-rle.csv, at least one
	Test    int    // films without rows in train-rle.csv
	Seed    uint64 // the same seed draws the same films
	Workers int    // films at a time; 0 means one per core

	// Progress, if not nil, is called after each film, never by two goroutines
	// at once.
	Progress func(done, total int)
}

// DefaultOptions returns options for 120 training films and no test films, with
// seed 0.
func DefaultOptions() *Options { return &Options{Train: 120} }

// Summary counts what Write has written.
type Summary struct {
	Train, Test, Positive int // Positive counts only training films
}

// Write draws a series of phantoms and writes them to dir: DICOM files (JPEG
// baseline), CSV files of runs in the official format, and a README that says what
// they are. Some positive films have two rows whose runs overlap, as in the
// official file. dir must be new or empty. When ctx is done, it returns the error
// of ctx.
func Write(ctx context.Context, dir string, opt *Options) (*Summary, error) {
	if opt == nil {
		opt = DefaultOptions()
	}
	o := *opt
	if o.Train < 1 || o.Test < 0 || o.Train > mostFilms || o.Test > mostFilms-o.Train {
		return nil, fmt.Errorf("phantom: %d training and %d test films; wanted at least one training film and at most %d films together", o.Train, o.Test, mostFilms)
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("phantom: %w", err)
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("phantom: folder %s is not empty; choose another, or remove it", dir)
	}
	for _, sub := range []string{TrainDir, TestDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o777); err != nil {
			return nil, fmt.Errorf("phantom: %w", err)
		}
	}
	// The README is written first, so that no film is ever in the folder
	// without it.
	if err := atomicfile.WriteFile(filepath.Join(dir, ReadmeFile), []byte(readme(&o))); err != nil {
		return nil, fmt.Errorf("phantom: %w", err)
	}

	rows, err := drawAll(ctx, dir, &o)
	if err != nil {
		return nil, err
	}
	sum := &Summary{Train: o.Train, Test: o.Test}
	for i := range o.Train {
		if Positive(o.Seed, i) {
			sum.Positive++
		}
	}
	for file, part := range map[string][][]maskcsv.Row{TrainRuns: rows[:o.Train], TestRuns: rows[o.Train:]} {
		err := atomicfile.Write(filepath.Join(dir, file), func(w io.Writer) error { return writeRows(w, part) })
		if err != nil {
			return nil, fmt.Errorf("phantom: %w", err)
		}
	}
	return sum, nil
}

// drawAll writes the films in parallel and returns the rows of each film.
func drawAll(ctx context.Context, dir string, opt *Options) ([][]maskcsv.Row, error) {
	total := opt.Train + opt.Test
	rows := make([][]maskcsv.Row, total)
	var mu sync.Mutex // guards done and the order of Progress
	done := 0
	all, going := errgroup.WithContext(ctx)
	all.SetLimit(opt.Workers)
	for i := 0; i < total && going.Err() == nil; i++ {
		all.Go(func() error {
			c := Draw(opt.Seed, i)
			sub := TrainDir
			if i >= opt.Train {
				sub = TestDir
			}
			if err := c.writeDICOM(filepath.Join(dir, sub, c.Name+".dcm"), opt.Seed, i); err != nil {
				return fmt.Errorf("phantom: %w", err)
			}
			rows[i] = c.rows(i)
			mu.Lock()
			defer mu.Unlock()
			if done++; opt.Progress != nil {
				opt.Progress(done, total)
			}
			return nil
		})
	}
	return rows, errors.Join(all.Wait(), context.Cause(ctx))
}

// writeDICOM writes the film as a synthetic secondary capture.
func (c *Case) writeDICOM(path string, seed uint64, index int) error {
	film := &dicom.Film{
		Rows: Size, Columns: Size, Bits: 8, Pix8: c.Image.Pix,
		RowSpacing: 0.35, ColumnSpacing: 0.35, // mm: the torso is 33 cm wide
		PatientID: c.Patient, Sex: c.Sex, Age: fmt.Sprintf("%03dY", c.Age),
		StudyUID:       uid(seed, index, 1),
		SeriesUID:      uid(seed, index, 2),
		SOPInstanceUID: uid(seed, index, 3),
		Modality:       "OT",
		ConversionType: "SYN",
		BodyPart:       "PHANTOM",
		View:           c.View,
	}
	var b bytes.Buffer
	if err := dicom.Write(&b, film, dicom.JPEGBaseline); err != nil {
		return err
	}
	return atomicfile.WriteFile(path, b.Bytes())
}

// uid returns a UID below 2.25, the root of UIDs made of random 128-bit numbers.
// The same arguments give the same UID.
//
// Source: DICOM PS3.5, B.2.
func uid(seed uint64, index, part int) string {
	r := rand.New(rand.NewPCG(seed, uint64(index)<<2|uint64(part)))
	hi, lo := r.Uint64(), r.Uint64()
	hi = hi&^0xf000 | 0x4000         // a version 4
	lo = lo&^(3<<62) | uint64(2)<<62 // UUID of RFC 4122
	n := new(big.Int).SetUint64(hi)
	n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(lo))
	return "2.25." + n.String()
}

// rows returns the rows of a film in the CSV. Every third positive film has two
// rows, for the upper and the lower part of its mask; a strip is in both.
func (c *Case) rows(index int) []maskcsv.Row {
	whole := rle.Encode(c.Mask, nil)
	row := func(runs string) maskcsv.Row { return maskcsv.Row{ID: c.Name, Runs: runs} }
	if whole == "-1" || index%3 != 0 {
		return []maskcsv.Row{row(whole)}
	}
	first, last := Size, 0
	for i, v := range c.Mask.Pix {
		if v != 0 {
			first, last = min(first, i/Size), max(last, i/Size)
		}
	}
	middle := (first + last) / 2
	part := func(top, bottom int) maskcsv.Row {
		m := image.NewGray(c.Mask.Rect)
		copy(m.Pix[top*Size:bottom*Size], c.Mask.Pix[top*Size:])
		return row(rle.Encode(m, nil))
	}
	return []maskcsv.Row{part(0, middle+8), part(middle-8, Size)}
}

// writeRows writes a CSV with the same header and spaces as the official file.
func writeRows(w io.Writer, films [][]maskcsv.Row) error {
	if _, err := io.WriteString(w, "ImageId, EncodedPixels\n"); err != nil {
		return err
	}
	for _, rows := range films {
		for _, r := range rows {
			if _, err := fmt.Fprintf(w, "%s, %s\n", r.ID, r.Runs); err != nil {
				return err
			}
		}
	}
	return nil
}

func readme(o *Options) string {
	return fmt.Sprintf(`PHANTOMS - NOT PATIENTS

%d training and %d test films, drawn by the package data/phantom of
github.com/hcunet/hcunet from seed %d. They are geometry and noise: no real
film, patient or diagnosis went into them. They are for trying out software.
What a model scores on them says nothing about its worth on real films.

%s, %s   DICOM files, secondary captures, patient PHANTOM-...
%s   runs of the training masks, in the format of the SIIM-ACR challenge
%s    the same of the test films, for scoring
`, o.Train, o.Test, o.Seed, TrainDir, TestDir, TrainRuns, TestRuns)
}

// Package prepare turns films and their masks into a folder of training images, as
// the data-repack step of the notebook does.
package prepare

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/internal/words"
)

// Unlabelled says what becomes of a training film without a row in the CSV or
// without a mask image.
type Unlabelled int

const (
	Refuse Unlabelled = iota // an error that lists them
	Skip                     // they are left out
	Empty                    // they get an empty mask
)

var unlabelledWords = words.Choice[Unlabelled]{What: "choice", Words: []string{"refuse", "skip", "empty"}}

// String returns "refuse", "skip" or "empty".
func (u Unlabelled) String() string { return unlabelledWords.Word(u) }

// MarshalText implements encoding.TextMarshaler.
func (u Unlabelled) MarshalText() ([]byte, error) { return unlabelledWords.Marshal(u) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *Unlabelled) UnmarshalText(b []byte) (err error) {
	*u, err = unlabelledWords.Parse(b)
	return err
}

// Options say what Prepare reads and what it makes of it. Out and one of
// Images and Test must be given, and with Images one of RLE and Masks.
type Options struct {
	// Images and Test are files, or folders that are searched to any depth for
	// DICOM, PNG and JPEG files. Hidden files and all other files are passed over.
	Images, Test []string

	// RLE is a run-length CSV in the official format; its ids are the names of the
	// files without extension, or else DICOM SOP instance UIDs. Masks is a folder
	// of mask pictures named like the images.
	RLE, Masks string

	// RLESize is the width and height the runs were counted on, for films that
	// have been resized since; 0 means the film's own size.
	RLESize int

	// Patients is a CSV with a column "image" (name without extension) and a
	// column "patient", for films that do not say themselves.
	Patients string

	Out string // folder for train/, masks/, test/ and what is told about them; outside of all others

	// Task is what the images are about; without classes they are a background and
	// a mask, and 0 channels mean 1. The masks of two classes may have 0 and any other
	// value; a picture of more grey values is cut at half, and Summary says so. Of
	// more classes the values are the classes' numbers.
	Task data.Task

	Preparation data.Preparation // its Mean and Std are found, not used

	Unlabelled Unlabelled
	KeepGoing  bool // passes over films that cannot be read; Summary names them
	Workers    int  // films at a time; 0 means one per core

	// Progress, if not nil, is called after each film, from one goroutine at a
	// time.
	Progress func(done, total int)

	named bool // the classes were given
}

// Summary is what Prepare has done.
type Summary struct {
	Out         string
	Train, Test int             // films in the folder
	Positive    int             // training films with a mask that is not empty
	Kept        int             // films that an earlier run had finished
	Statistics  data.Statistics // without moments if the images say nothing

	Failed     []Failure // films passed over under KeepGoing, by path
	Unlabelled []string  // paths of films without a label, skipped or taken as empty
	Missing    []string  // ids in the CSV, or mask files, for which there is no film
	Warnings   []string  // about rows of the CSV, films and masks that are suspicious, but not wrong
	Vanished   []string  // names of films whose mask is empty at the new size
}

// Failure is a film that could not be prepared.
type Failure struct {
	Path string
	Err  error
}

// Run makes a folder in the notebook's layout out of films and their masks,
// as its data-repack step does: each film becomes Size x Size (bilinear), has its
// contrast equalized (CLAHE), and is written as train/NAME.png; the union of its
// runs, resized the same way, is masks/NAME.png. Test films go to test/. Beside
// them it leaves statistics.json and films.csv; the latter names patients as the
// films do.
//
// What is wrong with the question is found before anything is written. A film
// that cannot be read ends the work with an error that names it, or is passed
// over under KeepGoing. Every file appears whole or not at all, and a run that was
// stopped, by ctx or in any other way, goes on where it was when it is called
// again with the same options; until it has, Open refuses the folder. A folder
// made with other options, or by hand, is refused.
//
// Source: iafoss, "Data repack and image statistics", the public notebook that the
// training notebook names for its data.
func Run(ctx context.Context, opt Options) (*Summary, error) {
	opt.named = opt.Task.Classes != nil
	if !opt.named {
		opt.Task.Classes = data.Binary("mask").Classes
	}
	opt.Task.Channels = cmp.Or(opt.Task.Channels, 1)
	opt.Preparation.Mean, opt.Preparation.Std = nil, nil
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	if err := opt.check(); err != nil {
		return nil, err
	}
	sum := &Summary{Out: opt.Out}
	films, err := plan(&opt, sum)
	if err != nil {
		return nil, err
	}
	j, err := openJournal(&opt, films)
	if err != nil {
		return nil, err
	}
	defer j.close()

	var todo []*film
	for _, f := range films {
		if j.done[f.key()] == nil {
			todo = append(todo, f)
		}
	}
	sum.Kept = len(films) - len(todo)
	if len(todo) > 0 || !j.complete {
		if err := j.begin(&opt); err != nil {
			return nil, err
		}
		if err := prepareAll(ctx, &opt, j, todo, sum, len(films)); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(sum.Failed, func(a, b Failure) int { return cmp.Compare(a.Path, b.Path) })
	return sum, j.finish(&opt, films, sum)
}

func (opt *Options) check() error {
	switch {
	case opt.Out == "":
		return errors.New("prepare: no output folder given")
	case len(opt.Images)+len(opt.Test) == 0:
		return errors.New("prepare: no films given; name a folder of DICOM, PNG or JPEG files")
	case len(opt.Images) > 0 && opt.RLE == "" && opt.Masks == "":
		return errors.New("prepare: training films need masks: give a run-length CSV or a folder of mask images")
	case opt.RLE != "" && opt.Masks != "":
		return errors.New("prepare: a run-length CSV and a folder of mask images are given; give one of them")
	case opt.Unlabelled < Refuse || opt.Unlabelled > Empty:
		return fmt.Errorf("prepare: %d is no way to treat unlabelled films", opt.Unlabelled)
	case opt.RLE != "" && len(opt.Task.Classes) != 2:
		return fmt.Errorf("prepare: a run-length CSV has masks of two classes, the task has %d; give mask images", len(opt.Task.Classes))
	case opt.RLESize < 0:
		return fmt.Errorf("prepare: run-length size %d; wanted a number of pixels, or 0", opt.RLESize)
	}
	if err := opt.Preparation.Check(opt.Task); err != nil {
		return err
	}
	inputs := slices.Concat(opt.Images, opt.Test)
	if opt.Masks != "" {
		if st, err := os.Stat(opt.Masks); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("prepare: no folder %s; name the one that holds the mask images", opt.Masks)
		} else if err != nil {
			return fmt.Errorf("prepare: %w", err)
		} else if !st.IsDir() {
			return fmt.Errorf("prepare: %s is a file; name the folder that holds the mask images", opt.Masks)
		}
		inputs = append(inputs, opt.Masks)
	}
	out, err := real(opt.Out)
	if err != nil {
		return err
	}
	for _, in := range inputs {
		abs, err := real(in)
		switch {
		case err != nil:
			return err
		case within(out, abs):
			return fmt.Errorf("prepare: output folder %s holds the input %s; choose another", opt.Out, in)
		case within(abs, out):
			return fmt.Errorf("prepare: output folder %s lies inside the input %s, where it would be read as films the next time; choose another", opt.Out, in)
		}
	}
	return nil
}

// real returns the absolute path of a file that may not exist yet, with the links of
// what does resolved.
func real(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("prepare: %w", err)
	}
	rest := ""
	for dir := path; ; dir = filepath.Dir(dir) {
		if known, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(known, rest), nil
		}
		if dir == filepath.Dir(dir) {
			return path, nil
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}

// within says whether path is dir or lies inside it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(os.PathSeparator))
}

// prepareAll prepares films in parallel and writes each result to the journal. It
// returns at the first error that KeepGoing does not cover, or when ctx is done,
// after the films in work are finished.
func prepareAll(ctx context.Context, opt *Options, j *journal, todo []*film, sum *Summary, total int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // guards sum and the order of Progress
	done := total - len(todo)
	if opt.Progress != nil {
		opt.Progress(done, total)
	}
	next := make(chan *film)
	var wg sync.WaitGroup
	for range min(opt.Workers, len(todo)) {
		c, err := newChain(opt)
		if err != nil {
			cancel(err)
			break
		}
		wg.Go(func() {
			for f := range next {
				rec, err := c.prepare(f)
				if err == nil {
					err = j.add(rec)
				}
				mu.Lock()
				var bad *sourceError
				switch {
				case errors.As(err, &bad) && opt.KeepGoing:
					sum.Failed = append(sum.Failed, Failure{f.path, bad.err})
				case err != nil:
					cancel(err)
				}
				if done++; opt.Progress != nil {
					opt.Progress(done, total)
				}
				mu.Unlock()
			}
		})
	}
	for _, f := range todo {
		if ctx.Err() != nil {
			break
		}
		select {
		case next <- f:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	if err := context.Cause(ctx); errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("prepare: stopped after %d of %d films; the same command goes on from here: %w", len(j.done), total, err)
	} else if err != nil {
		var bad *sourceError
		if errors.As(err, &bad) {
			return fmt.Errorf("%w; repair or remove the file, or pass over such files with -keep-going", err)
		}
		return err
	}
	return nil
}

// sourceError is an error that lies in a film or its mask, not in the output.
type sourceError struct {
	path string
	err  error
}

func (e *sourceError) Error() string { return fmt.Sprintf("prepare: %s: %v", e.path, e.err) }
func (e *sourceError) Unwrap() error { return e.err }

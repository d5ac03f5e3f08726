// Package prepare turns films and their masks into a folder of training images,
// like the notebook "Data repack and image statistics".
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

// Unlabelled says what happens to a training film without a row in the CSV or
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

// Options are the inputs and choices of Run. Out and at least one of Images and
// Test are required; with Images, also one of RLE and Masks.
type Options struct {
	// Images and Test are files, or folders that are searched to any depth for
	// DICOM, PNG and JPEG files. Hidden files and all other files are ignored.
	Images, Test []string

	// RLE is a run-length CSV in the official format. Its ids are file names
	// without extension, or DICOM SOP instance UIDs. Masks is a folder of mask
	// pictures with the same names as the images.
	RLE, Masks string

	// RLESize is the width and height on which the runs were counted, if films
	// were resized since; 0 means the size of each film.
	RLESize int

	// Patients is a CSV with the columns "image" (name without extension) and
	// "patient", for films whose files do not name the patient.
	Patients string

	Out string // output folder, for train/, masks/, test/ and facts about them; outside of all input folders

	// Task says what the images show. Without classes there are a background and a
	// mask; 0 channels mean 1. With two classes, masks may have 0 and any other value;
	// in a mask with more values, 128 and above is mask, and the Summary has a
	// warning. With more classes, the values are class numbers.
	Task data.Task

	Preparation data.Preparation // Mean and Std are ignored; Run computes them

	Unlabelled Unlabelled
	KeepGoing  bool // leave out films that cannot be read; Summary names them
	Workers    int  // films at a time; 0 means one per core

	// Progress, if not nil, is called after each film, never by two goroutines
	// at once.
	Progress func(done, total int)

	named bool // class names were given
}

// Summary says what Run did.
type Summary struct {
	Out         string
	Train, Test int             // films in the folder
	Positive    int             // training films with a mask that is not empty
	Kept        int             // films that were finished by an earlier run
	Statistics  data.Statistics // without Mean and Std if all values are equal

	Failed     []Failure // films left out with KeepGoing, by path
	Unlabelled []string  // paths of films without a label, left out or with an empty mask
	Missing    []string  // ids in the CSV, or mask files, without a film
	Warnings   []string  // rows of the CSV, films and masks that are suspicious, but not wrong
	Vanished   []string  // names of films whose mask became empty at the new size
}

// Failure is a film that could not be prepared.
type Failure struct {
	Path string
	Err  error
}

// Run makes a folder in the notebook's layout from films and their masks. By
// default each film is resized to Size x Size (bilinear), its contrast is
// equalized (CLAHE), and it is written to train/NAME.png. The union of its runs
// is resized and written to masks/NAME.png. Test films go to test/. Run also
// writes statistics.json and films.csv, which holds the patient IDs of the films.
//
// Wrong options are found before anything is written. If a film cannot be read,
// Run returns an error that names it, or leaves it out with KeepGoing. Every file
// is written completely or not at all. A run that was stopped, by ctx or in any
// other way, continues when Run is called again with the same options; until it is
// complete, Open returns an error for the folder. Run returns an error if the
// folder was made with other options or by hand.
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
		return fmt.Errorf("prepare: Unlabelled is %d; wanted Refuse, Skip or Empty", opt.Unlabelled)
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

// real returns the absolute path of a file that may not exist yet. It resolves the
// links in the part of the path that exists.
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

// within returns whether path is dir or lies inside it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(os.PathSeparator))
}

// prepareAll prepares films in parallel and writes each result to the journal. It
// stops at the first error, except for films left out with KeepGoing, or when ctx
// is done, and first finishes the films that are in work.
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
		return fmt.Errorf("prepare: stopped after %d of %d films; the same command continues from here: %w", len(j.done), total, err)
	} else if err != nil {
		var bad *sourceError
		if errors.As(err, &bad) {
			return fmt.Errorf("%w; repair or remove the file, or leave out such files with -keep-going", err)
		}
		return err
	}
	return nil
}

// sourceError is an error in a film or its mask, not in the output.
type sourceError struct {
	path string
	err  error
}

func (e *sourceError) Error() string { return fmt.Sprintf("prepare: %s: %v", e.path, e.err) }
func (e *sourceError) Unwrap() error { return e.err }

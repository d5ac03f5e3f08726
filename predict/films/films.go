// Package films predicts many films and writes the results into a folder:
//
//	masks/NAME.png        the mask, of the film's own size; 0 and 255, or the numbers of classes
//	overlays/NAME.png     the film with the outlines of the masks
//	findings/NAME.json    positive or not, areas, boxes, probabilities, timings
//	dicom/NAME.seg.dcm    a Segmentation, if Options.Segmentation is set
//	dicom/NAME.sc.dcm     a Secondary Capture, if Options.Capture is set
//	findings.csv          a line for each film and class
//	submission.csv        the masks as run lengths, or submission_CLASS.csv for each of several classes
//	failed.csv            the films that could not be predicted, if there are any
//	model.txt             a description of the model
//
// The files of a film are written as soon as it is predicted, the CSV files at the end, in
// the order of the films. Every file except the submissions and failed.csv says that it is
// for research use, and that the model was trained on phantoms if it was.
package films

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/rle"
	"golang.org/x/sync/errgroup"
)

// Options say what Run writes.
type Options struct {
	Out       string // folder for the results, which is made if needed; existing files are replaced
	KeepGoing bool   // go on after a film that cannot be predicted, and list it in failed.csv
	Workers   int    // number of films at a time; 0 means one more than there are cores

	Segmentation bool      // also write a DICOM Segmentation for each DICOM film
	Capture      bool      // also write a DICOM Secondary Capture for each DICOM film
	Time         time.Time // time of creation in these objects; required for them

	// Done, if not nil, is called for each film when the film and all films before it are
	// done. The calls are made in the order of the films, one at a time.
	Done func(*Film)
}

// A Film is a film that was predicted or could not be predicted.
type Film struct {
	Name   string          `json:"name"` // name of the file without its extension
	Path   string          `json:"file"`
	Model  string          `json:"model,omitempty"`
	Result *predict.Result `json:"result"` // without masks and probabilities; nil after an error
	Err    error           `json:"-"`

	runs []string // run lengths of each class but the background
}

// A Summary has the results of Run.
type Summary struct {
	Films, Positive int     // number of films, and of those with a positive result
	Failed          []*Film // the films that could not be predicted
}

// Run predicts the films at paths and writes the results. It returns the first error. With
// KeepGoing, only an error of writing or of ctx ends it, and films that cannot be predicted
// are in Summary.Failed. Two films whose names differ only in folder or extension are an
// error.
func Run(ctx context.Context, p *predict.Predictor, paths []string, opt Options) (*Summary, error) {
	films, err := named(paths)
	if err != nil {
		return nil, err
	}
	if opt.Workers == 0 {
		opt.Workers = runtime.NumCPU() + 1
	}
	if opt.Workers < 0 {
		return nil, fmt.Errorf("films: %d workers; wanted none below 0", opt.Workers)
	}
	w := &writer{model: p.Model(), opt: opt}
	if err := w.begin(); err != nil {
		return nil, err
	}
	finished := make([]chan struct{}, len(films))
	for i := range finished {
		finished[i] = make(chan struct{})
	}
	work, going := errgroup.WithContext(ctx)
	work.SetLimit(opt.Workers)
	failed, told := make(chan struct{}), make(chan struct{})
	go func() { // calls Done in the order of the films
		defer close(told)
		for i, f := range films {
			select {
			case <-finished[i]:
			case <-failed:
				return
			}
			if opt.Done != nil {
				opt.Done(f)
			}
		}
	}()
	for i, f := range films {
		work.Go(func() error {
			if err := context.Cause(going); err != nil {
				return err
			}
			f.Err = w.film(going, p, f)
			if f.Err != nil && (!opt.KeepGoing || going.Err() != nil || errors.As(f.Err, new(*outError))) {
				return fmt.Errorf("films: %s: %w", f.Path, f.Err)
			}
			close(finished[i])
			return nil
		})
	}
	err = work.Wait()
	if err != nil {
		close(failed)
	}
	<-told
	if err != nil {
		return nil, err
	}
	return w.end(films)
}

// named returns a Film with a name for each path. Two equal names are an error.
func named(paths []string) ([]*Film, error) {
	if len(paths) == 0 {
		return nil, errors.New("films: there is no film to predict")
	}
	films := make([]*Film, len(paths))
	byName := map[string]string{}
	for i, path := range paths {
		base := filepath.Base(path)
		name, err := data.FileName(strings.TrimSuffix(base, filepath.Ext(base)))
		if err != nil {
			return nil, fmt.Errorf("films: %s: %w", path, err)
		}
		if other, ok := byName[name]; ok {
			return nil, fmt.Errorf("films: %s and %s have one name; predict them into different folders, or rename one of them", other, path)
		}
		byName[name] = path
		films[i] = &Film{Name: name, Path: path}
	}
	return films, nil
}

// An outError is an error of writing. Other films would fail in the same way, so it ends Run
// also with KeepGoing.
type outError struct{ error }

func (e *outError) Unwrap() error { return e.error }

type writer struct {
	model *predict.Model
	opt   Options
}

func (w *writer) path(parts ...string) string {
	return filepath.Join(append([]string{w.opt.Out}, parts...)...)
}

func (w *writer) begin() error {
	if w.opt.Out == "" {
		return errors.New("films: no folder to write to was given")
	}
	dicom := w.opt.Segmentation || w.opt.Capture
	if dicom && w.opt.Time.IsZero() {
		return errors.New("films: DICOM objects need a time that they were made at")
	}
	for _, dir := range []string{"masks", "overlays", "findings", "dicom"} {
		if dir == "dicom" && !dicom {
			continue
		}
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			return fmt.Errorf("films: %w", err)
		}
	}
	if err := atomicfile.WriteFile(w.path("model.txt"), []byte(w.model.Card())); err != nil {
		return fmt.Errorf("films: %w", err)
	}
	return nil
}

// film predicts a film and writes its files.
func (w *writer) film(ctx context.Context, p *predict.Predictor, f *Film) error {
	r, err := p.File(ctx, f.Path)
	if err != nil {
		return err
	}
	f.Result, f.Model = r, w.model.Name
	for _, finding := range r.Findings {
		f.runs = append(f.runs, rle.Encode(finding.Mask, &rle.Options{Empty: rle.Blank}))
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	err = errors.Join(
		w.png(r.Mask(), "masks", f.Name),
		w.png(Overlay(r), "overlays", f.Name),
		atomicfile.WriteFile(w.path("findings", f.Name+".json"), append(text, '\n')),
	)
	if err != nil {
		return &outError{err}
	}
	if err := w.dicom(f); err != nil {
		return err
	}
	// Free the memory of what the CSV files do not need.
	r.Prob, r.Film = nil, nil
	for i := range r.Findings {
		r.Findings[i].Mask = nil
	}
	return nil
}

// png writes an image as a PNG file that contains the notices.
func (w *writer) png(img image.Image, dir, name string) error {
	b, err := PNG(img, w.model.Notices())
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(w.path(dir, name+".png"), b)
}

// end writes the CSV files.
func (w *writer) end(films []*Film) (*Summary, error) {
	sum := &Summary{Films: len(films)}
	rows := make([][]maskcsv.Row, len(w.model.Task.Classes)-1)
	var done []*Film
	for _, f := range films {
		if f.Err != nil {
			sum.Failed = append(sum.Failed, f)
			continue
		}
		done = append(done, f)
		if f.Result.Positive {
			sum.Positive++
		}
		for c, runs := range f.runs {
			rows[c] = append(rows[c], maskcsv.Row{ID: f.Name, Runs: runs})
		}
	}
	err := w.findings(done)
	for c := range rows {
		name := "submission.csv"
		if len(rows) > 1 {
			class, bad := data.FileName("submission_" + w.model.Task.Classes[c+1])
			err = errors.Join(err, bad)
			name = class + ".csv"
		}
		err = errors.Join(err, maskcsv.SaveSubmission(w.path(name), rows[c]))
	}
	if err = errors.Join(err, w.failed(sum.Failed)); err != nil {
		return nil, fmt.Errorf("films: %w", err)
	}
	return sum, nil
}

// String returns one line with the film's name and its findings or error.
func (f *Film) String() string {
	if f.Err != nil {
		return fmt.Sprintf("%s: %v", f.Name, f.Err)
	}
	var found []string
	for _, d := range f.Result.Findings {
		switch {
		case !d.Positive:
		case d.Area > 0:
			found = append(found, fmt.Sprintf("%s, %.0f mm²", d.Class, d.Area))
		default:
			found = append(found, fmt.Sprintf("%s, %d pixels", d.Class, d.Pixels))
		}
	}
	if found == nil {
		found = append(found, "nothing")
	}
	return fmt.Sprintf("%s: %s (%.0f ms)", f.Name, strings.Join(found, "; "), f.Result.Timings.Total.Seconds()*1000)
}

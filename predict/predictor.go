package predict

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/feed"
)

// Options replace settings of the model and say how calls share the engine; nil means
// all defaults.
type Options struct {
	Folds []int           // folds to use, counted from 0; nil means all
	Flip  *bool           // replaces Inference.Flip; nil means the model's
	Point *OperatingPoint // replaces the operating point; nil means the model's
	Tiles *Tiles          // predicts films in tiles of the network's size; nil means each film as one image

	// MaxPixels is the largest width times height of a film that File and Read accept; 0
	// means 1<<27. A service that anyone can send films to should set it lower, because
	// each call that is being worked on needs several bytes of memory for each pixel.
	MaxPixels int

	Batch int           // largest number of images computed at once; 0 means the engine's own number, or 8
	Wait  time.Duration // longest time that an image waits for others to join its batch; 0 means 5 ms
	Queue int           // largest number of calls that are worked on or wait; 0 means 64

	// Refuse makes a call return ErrBusy if the queue is full. Otherwise the call waits
	// for a place.
	Refuse bool
}

var (
	// ErrBusy is the error of a call that finds the queue full; see Options.Refuse.
	ErrBusy = errors.New("predict: the queue is full; try again later")
	// ErrClosed is the error of calls that come after Predictor.Close or are interrupted by it.
	ErrClosed = errors.New("predict: the predictor is closed")
)

// A FilmError is an error of the film: it cannot be read, is too large, or is of a kind
// that the model does not take. Any other error of a call is one of the predictor, the
// engine or the context.
type FilmError struct{ Err error }

func (e *FilmError) Error() string { return e.Err.Error() }
func (e *FilmError) Unwrap() error { return e.Err }

// A Predictor predicts films with a model. Any number of goroutines may use it at the
// same time. Their calls wait in a queue, and images that wait at the same time are
// computed together.
type Predictor struct {
	model Model
	opt   Options

	preparers sync.Pool     // of *data.Preparer
	places    chan struct{} // each call in the queue holds one element
	jobs      chan *job
	coming    atomic.Int64 // number of images that calls in the queue have announced and no batch has yet

	closing   chan struct{} // closed by Close
	closeOnce sync.Once
	closed    chan struct{} // closed after the engine was closed and err was set
	err       error         // the error of closing the engine
}

// Open reads the artifact at path and calls New.
func Open(path string, b Backend, opt *Options) (*Predictor, error) {
	a, err := ReadArtifact(path)
	if err != nil {
		return nil, err
	}
	return New(a, b, opt)
}

// New returns a Predictor that computes with an artifact on a backend. The caller must
// close it to free its memory. The Predictor keeps the artifact's Model, not its Weights.
// If the caller does not keep the weights either, New returns their memory to the system.
func New(a *Artifact, b Backend, opt *Options) (*Predictor, error) {
	p := &Predictor{closing: make(chan struct{}), closed: make(chan struct{})}
	if opt != nil {
		p.opt = *opt
	}
	if err := p.opt.fill(); err != nil {
		return nil, err
	}
	used := *a
	if p.opt.Folds != nil {
		chosen, err := a.Choose(p.opt.Folds)
		if err != nil {
			return nil, err
		}
		used = *chosen
	}
	if p.opt.Flip != nil {
		used.Inference.Flip = *p.opt.Flip
	}
	if p.opt.Point != nil {
		used.Point = *p.opt.Point
	}
	if err := used.Check(); err != nil {
		return nil, err
	}
	p.model = used.Model
	p.preparers.New = func() any {
		prep, err := data.NewPreparer(p.model.Preparation, p.model.Task)
		if err != nil { // impossible after Check
			panic(err)
		}
		prep.MaxPixels = p.opt.MaxPixels
		return prep
	}
	p.places = make(chan struct{}, p.opt.Queue)
	p.jobs = make(chan *job, p.opt.Queue)
	engine, err := b.Open(&used)
	if err != nil {
		return nil, err
	}
	debug.FreeOSMemory() // frees the weights that were read; the engine has its own copy
	if b, ok := engine.(Batcher); ok && p.opt.Batch == 0 {
		p.opt.Batch = b.Batch()
	}
	if p.opt.Batch < 1 {
		p.opt.Batch = 8
	}
	go p.serve(engine)
	return p, nil
}

func (o *Options) fill() error {
	if o.Batch < 0 || o.Wait < 0 || o.Queue < 0 || o.MaxPixels < 0 {
		return fmt.Errorf("predict: batch %d, wait %v, queue %d, at most %d pixels; wanted none below 0", o.Batch, o.Wait, o.Queue, o.MaxPixels)
	}
	if o.Wait == 0 {
		o.Wait = 5 * time.Millisecond
	}
	if o.Queue == 0 {
		o.Queue = 64
	}
	if o.Tiles != nil {
		return o.Tiles.check()
	}
	return nil
}

// Model returns a copy of the model that the predictor uses: the artifact's model with
// Options.Folds, Flip and Point applied.
func (p *Predictor) Model() *Model { m := p.model; return &m }

// Close waits for the batch that is being computed and frees everything. All other calls
// return ErrClosed. Close returns the error of closing the engine, and may be called
// more than once.
func (p *Predictor) Close() error {
	p.closeOnce.Do(func() { close(p.closing) })
	<-p.closed
	return p.err
}

// File predicts the DICOM, PNG or JPEG file at path. Like the other methods that predict,
// it returns a *FilmError, ErrBusy, ErrClosed, the cause of ctx, or an error of the
// engine.
func (p *Predictor) File(ctx context.Context, path string) (*Result, error) {
	return p.predict(ctx, func(prep *data.Preparer) (*data.Film, error) { return prep.Open(path) })
}

// Read predicts a DICOM, PNG or JPEG file from a reader. The call holds its place in the
// queue while it reads, so data from a network should be read into memory first.
func (p *Predictor) Read(ctx context.Context, r io.Reader) (*Result, error) {
	return p.predict(ctx, func(prep *data.Preparer) (*data.Film, error) { return prep.Read(r) })
}

// Image predicts img.
func (p *Predictor) Image(ctx context.Context, img image.Image) (*Result, error) {
	return p.predict(ctx, func(prep *data.Preparer) (*data.Film, error) { return prep.Film(img) })
}

// DICOM predicts a film that package dicom has read.
func (p *Predictor) DICOM(ctx context.Context, film *dicom.Film) (*Result, error) {
	return p.predict(ctx, func(prep *data.Preparer) (*data.Film, error) { return prep.DICOM(film) })
}

// Film predicts a film that a data.Preparer has read with the model's Preparation and
// Task.
func (p *Predictor) Film(ctx context.Context, film *data.Film) (*Result, error) {
	return p.predict(ctx, func(*data.Preparer) (*data.Film, error) { return film, nil })
}

func (p *Predictor) predict(ctx context.Context, open func(*data.Preparer) (*data.Film, error)) (*Result, error) {
	start := time.Now()
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-p.places }()

	prep := p.preparers.Get().(*data.Preparer)
	defer p.preparers.Put(prep)
	w := &work{p: p, prep: prep, began: time.Now()}
	w.timings.Queued = w.began.Sub(start)
	defer w.leave()
	w.expect(1)
	film, err := open(prep)
	if err != nil {
		return nil, &FilmError{err}
	}
	if film == nil || film.Image == nil {
		return nil, &FilmError{errors.New("predict: the film has no image")}
	}
	if err := film.Image.Check(); err != nil {
		return nil, &FilmError{err}
	}
	w.timings.Read = time.Since(w.began)
	predict := w.whole
	if p.opt.Tiles != nil {
		predict = w.tiles
	}
	prob, geometry, err := predict(ctx, film)
	if err != nil {
		return nil, err
	}
	r, err := p.model.result(film, prob, geometry)
	if err != nil {
		return nil, err
	}
	w.timings.Total = time.Since(start)
	r.Timings = w.timings
	return r, nil
}

// enter takes a place in the queue or returns an error.
func (p *Predictor) enter(ctx context.Context) error {
	select {
	case <-p.closing:
		return ErrClosed
	default:
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	select {
	case p.places <- struct{}{}:
		return nil
	default:
	}
	if p.opt.Refuse {
		return ErrBusy
	}
	select {
	case p.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.closing:
		return ErrClosed
	}
}

// work is the state of one call.
type work struct {
	p       *Predictor
	prep    *data.Preparer
	coming  int64 // this call's share of Predictor.coming
	began   time.Time
	timings Timings
}

// expect announces how many more images this call will send to the engine.
func (w *work) expect(images int) {
	d := int64(images) - w.coming
	w.coming += d
	w.p.coming.Add(d)
}

// leave withdraws the announced images that were not sent.
func (w *work) leave() { w.expect(0) }

// prepare returns the values of a film that an engine takes, (C, H, W).
func (w *work) prepare(film *data.Film) ([]float32, *data.Prepared, error) {
	began := time.Now()
	prepared, err := w.prep.Image(film)
	if err != nil {
		return nil, nil, &FilmError{err}
	}
	m := prepared.Image
	values := make([]float32, m.Channels*m.Height*m.Width)
	feed.Values(values, m)
	if size := w.p.model.Size(); size != m.Width {
		plan, err := augment.Identity().Plan(m.Height, m.Width, size)
		if err != nil {
			return nil, nil, err
		}
		values = plan.Image(nil, values)
		prepared.Geometry.Width, prepared.Geometry.Height = size, size
	}
	w.timings.Prepare += time.Since(began)
	return values, prepared, nil
}

// compute sends images to the engine and returns their probabilities.
func (w *work) compute(ctx context.Context, images ...[]float32) ([][]float32, error) {
	began := time.Now()
	jobs := make([]*job, len(images))
	for i, img := range images {
		jobs[i] = &job{ctx: ctx, image: img, done: make(chan struct{})}
		select {
		case w.p.jobs <- jobs[i]:
			w.coming-- // gather subtracts it from Predictor.coming
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-w.p.closing:
			return nil, ErrClosed
		}
	}
	probs := make([][]float32, len(jobs))
	var before *run
	for i, j := range jobs {
		select {
		case <-j.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-w.p.closed:
			select {
			case <-j.done: // the last batch before Close
			default:
				return nil, ErrClosed
			}
		}
		if j.err != nil {
			return nil, j.err
		}
		probs[i] = j.prob
		w.timings.Batch = max(w.timings.Batch, j.run.images)
		if j.run != before { // several images of a call may be in one batch, one after another
			w.timings.Compute += j.run.took
			before = j.run
		}
	}
	w.timings.Waited += time.Since(began)
	return probs, nil
}

// A job is one image for the engine, and its result.
type job struct {
	ctx   context.Context
	image []float32

	done chan struct{} // closed when the fields below are set
	prob []float32
	err  error
	run  *run
}

// run is a call of the engine.
type run struct {
	images int
	took   time.Duration
}

// serve passes images to the engine until the predictor is closed.
func (p *Predictor) serve(engine Engine) {
	defer close(p.closed)
	defer func() { p.err = engine.Close() }()
	var batch []*job
	var images []float32
	for {
		batch = p.gather(batch[:0])
		if len(batch) == 0 {
			return
		}
		images = p.compute(engine, batch, images[:0])
		clear(batch)
	}
}

// gather returns the next batch: it waits for one image, and then for the other images
// that calls have announced, up to Options.Batch images and Options.Wait. It returns none
// when the predictor is closing.
func (p *Predictor) gather(batch []*job) []*job {
	var timeout <-chan time.Time
	for len(batch) < p.opt.Batch {
		if len(batch) > 0 && timeout == nil {
			if p.coming.Load() <= 0 {
				return batch
			}
			timeout = time.After(p.opt.Wait)
		}
		select {
		case <-p.closing:
			return nil
		default:
		}
		select {
		case j := <-p.jobs:
			p.coming.Add(-1)
			if j.ctx.Err() == nil { // otherwise its caller no longer waits
				batch = append(batch, j)
			}
			if len(batch) > 0 && p.coming.Load() <= 0 {
				return batch
			}
		case <-timeout:
			return batch
		case <-p.closing:
			return nil
		}
	}
	return batch
}

// compute computes a batch and sets the results of its jobs. If the engine fails, each
// image is computed alone, so that only the images that cause the error fail.
func (p *Predictor) compute(engine Engine, batch []*job, images []float32) []float32 {
	for _, j := range batch {
		images = append(images, j.image...)
	}
	began := time.Now()
	prob, err := probabilities(engine, images, len(batch), &p.model)
	this := &run{len(batch), time.Since(began)}
	if err != nil && len(batch) > 1 {
		for i := range batch {
			images = p.compute(engine, batch[i:i+1], images[:0])
		}
		return images
	}
	size := len(prob) / len(batch)
	for i, j := range batch {
		j.err, j.run = err, this
		if err == nil {
			j.prob = append([]float32(nil), prob[i*size:][:size]...)
			j.err = check(j.prob)
		}
		close(j.done)
	}
	return images
}

// probabilities calls the engine and checks the length of its result.
func probabilities(e Engine, images []float32, n int, m *Model) ([]float32, error) {
	prob, err := e.Probabilities(images, n)
	if err != nil {
		return nil, err
	}
	size := m.Size()
	if want := n * m.Task.Outputs() * size * size; len(prob) != want {
		return nil, fmt.Errorf("predict: the engine returned %d probabilities for %d images; wanted %d", len(prob), n, want)
	}
	return prob, nil
}

// check returns an error if a value is not a probability. Without this check the mask of
// NaNs would be empty, as if the film were negative.
func check(prob []float32) error {
	for i, v := range prob {
		if !(v >= 0 && v <= 1+1e-5) { // also true for NaN
			return fmt.Errorf("predict: the network gave %v as probability %d; the weights are damaged, or the number type is too small for them", v, i)
		}
	}
	return nil
}

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

// Options change what a model says of itself, and how calls share an engine; nil
// means all defaults.
type Options struct {
	Folds []int           // networks to use; nil means all
	Flip  *bool           // nil means as the model says
	Point *OperatingPoint // nil means as the model says
	Tiles *Tiles          // predicts films in tiles of the network's size; nil means whole

	// MaxPixels bounds width times height of the films that File and Read read; 0 means
	// 1<<27. A service that strangers send films to wants less: each call at work needs
	// some bytes a pixel.
	MaxPixels int

	Batch int           // images computed at once, at most; 0 means as the engine likes it, or 8
	Wait  time.Duration // for which an image waits for others on their way, at most; 0 means 5 ms
	Queue int           // calls at work or waiting, at most; 0 means 64

	// Refuse makes a call that finds the queue full return ErrBusy. Otherwise it waits
	// for a place.
	Refuse bool
}

var (
	ErrBusy   = errors.New("predict: the queue is full; try again later")
	ErrClosed = errors.New("predict: the predictor is closed")
)

// A FilmError is about the film that was to be predicted: it cannot be read, is of a
// kind that the model does not take, or is too large. Any other error is about the
// predictor or the call.
type FilmError struct{ Err error }

func (e *FilmError) Error() string { return e.Err.Error() }
func (e *FilmError) Unwrap() error { return e.Err }

// A Predictor predicts films with a model. Any number of goroutines may use it: their
// calls queue, and images that wait at the same time are computed together.
type Predictor struct {
	model Model
	opt   Options

	preparers sync.Pool     // of *data.Preparer
	places    chan struct{} // one is taken by each call
	jobs      chan *job
	coming    atomic.Int64 // images that no batch has yet, of calls that have a place

	closing   chan struct{} // closed by Close
	closeOnce sync.Once
	closed    chan struct{} // closed when the engine is, after err was set
	err       error         // of closing the engine
}

// Open reads the artifact at path and opens it with a backend.
func Open(path string, b Backend, opt *Options) (*Predictor, error) {
	a, err := ReadArtifact(path)
	if err != nil {
		return nil, err
	}
	return New(a, b, opt)
}

// New opens an artifact with a backend. Close the Predictor to free its memory; of
// the artifact it keeps the Model alone. What the caller keeps no longer either, such
// as the weights, goes back to the system at once.
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
		if err != nil { // Check has looked
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
	debug.FreeOSMemory() // the weights that were read, which an engine copies
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

// Model returns what the predictor works with: the artifact's model, with the
// options applied.
func (p *Predictor) Model() *Model { m := p.model; return &m }

// Close lets the batch that is being computed end, makes every other call fail with
// ErrClosed, frees everything, and returns the engine's error.
func (p *Predictor) Close() error {
	p.closeOnce.Do(func() { close(p.closing) })
	<-p.closed
	return p.err
}

// File predicts the DICOM, PNG or JPEG file at path.
func (p *Predictor) File(ctx context.Context, path string) (*Result, error) {
	return p.predict(ctx, func(prep *data.Preparer) (*data.Film, error) { return prep.Open(path) })
}

// Read predicts a DICOM, PNG or JPEG file from a reader. While a reader is slow, it
// keeps its place in the queue: read what comes over a network first.
func (p *Predictor) Read(ctx context.Context, r io.Reader) (*Result, error) {
	return p.predict(ctx, func(prep *data.Preparer) (*data.Film, error) { return prep.Read(r) })
}

// Image predicts a picture.
func (p *Predictor) Image(ctx context.Context, img image.Image) (*Result, error) {
	return p.predict(ctx, func(prep *data.Preparer) (*data.Film, error) { return prep.Film(img) })
}

// DICOM predicts a film that package dicom has read.
func (p *Predictor) DICOM(ctx context.Context, film *dicom.Film) (*Result, error) {
	return p.predict(ctx, func(prep *data.Preparer) (*data.Film, error) { return prep.DICOM(film) })
}

// Film predicts a film that a data.Preparer of the model's Preparation and Task has
// read.
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

// enter takes a place in the queue.
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

// work is what one call does.
type work struct {
	p       *Predictor
	prep    *data.Preparer
	coming  int64 // of the predictor's, those that this call has announced
	began   time.Time
	timings Timings
}

// expect says how many more images will come of this call.
func (w *work) expect(images int) {
	d := int64(images) - w.coming
	w.coming += d
	w.p.coming.Add(d)
}

// leave takes back what was announced and will not come.
func (w *work) leave() { w.expect(0) }

// prepare returns a film as the values that an engine takes.
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

// compute returns the probabilities of images.
func (w *work) compute(ctx context.Context, images ...[]float32) ([][]float32, error) {
	began := time.Now()
	jobs := make([]*job, len(images))
	for i, img := range images {
		jobs[i] = &job{ctx: ctx, image: img, done: make(chan struct{})}
		select {
		case w.p.jobs <- jobs[i]:
			w.coming-- // serve takes it off the predictor's
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-w.p.closing:
			return nil, ErrClosed
		}
	}
	probs := make([][]float32, len(jobs))
	for i, j := range jobs {
		select {
		case <-j.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-w.p.closed:
			select {
			case <-j.done: // by the last batch
			default:
				return nil, ErrClosed
			}
		}
		if j.err != nil {
			return nil, j.err
		}
		probs[i] = j.prob
		w.timings.Batch = max(w.timings.Batch, j.batch)
		w.timings.Compute += j.compute
	}
	w.timings.Waited += time.Since(began)
	return probs, nil
}

// A job is an image on its way through the engine.
type job struct {
	ctx   context.Context
	image []float32

	done    chan struct{} // closed when the rest is set
	prob    []float32
	err     error
	batch   int
	compute time.Duration
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

// gather waits for an image, and then for as many more as there are on their way,
// within the limits of Options. It returns none when the predictor is closing.
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
			if j.ctx.Err() == nil { // otherwise nobody waits for it
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

// compute answers a batch. Where it fails, each image is tried alone, so that none
// suffers from another one.
func (p *Predictor) compute(engine Engine, batch []*job, images []float32) []float32 {
	for _, j := range batch {
		images = append(images, j.image...)
	}
	began := time.Now()
	prob, err := probabilities(engine, images, len(batch), &p.model)
	took := time.Since(began)
	if err != nil && len(batch) > 1 {
		for i := range batch {
			images = p.compute(engine, batch[i:i+1], images[:0])
		}
		return images
	}
	size := len(prob) / len(batch)
	for i, j := range batch {
		j.err, j.batch, j.compute = err, len(batch), took
		if err == nil {
			j.prob = append([]float32(nil), prob[i*size:][:size]...)
			j.err = check(j.prob)
		}
		close(j.done)
	}
	return images
}

// probabilities calls the engine and holds it to its word.
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

// check returns an error if a value is not a probability. Its mask would be empty, as
// if nothing had been found.
func check(prob []float32) error {
	for i, v := range prob {
		if !(v >= 0 && v <= 1+1e-5) { // NaN neither
			return fmt.Errorf("predict: the network gave %v as probability %d; the weights are damaged, or the number type is too small for them", v, i)
		}
	}
	return nil
}

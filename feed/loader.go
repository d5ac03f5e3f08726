package feed

import (
	"fmt"
	"iter"
	"runtime/debug"
	"sync"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/internal/random"
)

// LoaderOptions say how a Loader makes batches; the zero value yields the images one
// by one, as they are and in order.
type LoaderOptions struct {
	Batch int // images a batch; 0 means 1, or as many as there are processes
	Size  int // width and height of what it yields; 0 means the images' own

	Shuffle bool            // another order in each epoch
	Augment *augment.Config // what is drawn for each image of each epoch; nil for nothing
	Last    Last
	Seed    uint64 // of order and transforms

	// Share is the part of each batch that this process of several gets; Batch is
	// what all of them get together. Each reads the same epoch in the same order.
	Share Share

	Workers  int // images made at a time; 0 means one per core
	Prefetch int // batches made ahead; 0 means 2
}

// A Share is one of several parts of each batch. The zero Share is all of it.
type Share struct {
	Rank int // which part, from 0
	Of   int // parts; 0 means 1
}

// of returns where a share of n images begins and ends: parts differ by one image
// at most.
func (s Share) of(n int) (from, to int) { return s.Rank * n / s.Of, (s.Rank + 1) * n / s.Of }

// A Loader is a [Source] of batches of a set of images, made by several goroutines
// ahead of their use. It may be used from several goroutines.
//
// Order and transforms of an image are drawn from streams of their own, named by
// seed, epoch and image: neither the number of workers nor where an epoch is begun
// changes a batch. Beside the images that are held, it has in memory Prefetch+1
// batches and an image a worker.
type Loader struct {
	images *Images
	opt    LoaderOptions
	h, w   int // of a batch
}

// NewLoader returns a loader of images; it fails on options out of range.
func NewLoader(images *Images, opt LoaderOptions) (*Loader, error) {
	if opt.Batch < 0 || opt.Size < 0 || opt.Workers < 0 || opt.Prefetch < 0 {
		return nil, fmt.Errorf("feed: batches of %d images of size %d, %d workers, %d batches ahead; wanted none below 0", opt.Batch, opt.Size, opt.Workers, opt.Prefetch)
	}
	if _, err := opt.Last.MarshalText(); err != nil {
		return nil, err
	}
	if opt.Augment != nil {
		if err := opt.Augment.Check(); err != nil {
			return nil, err
		}
	}
	if opt.Share.Of == 0 {
		opt.Share.Of = 1
	}
	if opt.Share.Rank < 0 || opt.Share.Rank >= opt.Share.Of {
		return nil, fmt.Errorf("feed: part %d of %d of a batch, counted from 0", opt.Share.Rank, opt.Share.Of)
	}
	if opt.Batch == 0 {
		opt.Batch = opt.Share.Of
	}
	if opt.Batch < opt.Share.Of {
		return nil, fmt.Errorf("feed: a batch of %d images for %d processes; each needs one at least", opt.Batch, opt.Share.Of)
	}
	if opt.Prefetch == 0 {
		opt.Prefetch = 2
	}
	opt.Workers = workers(opt.Workers)
	l := &Loader{images, opt, images.Height, images.Width}
	if opt.Size > 0 {
		l.h, l.w = opt.Size, opt.Size
	}
	return l, nil
}

// Len returns the number of images.
func (l *Loader) Len() int { return l.images.Len() }

// Batches returns the number of batches in an epoch. A last batch that has not an
// image for every process is left out.
func (l *Loader) Batches() int {
	n := l.images.Len()
	batches := l.opt.Last.batches(n, l.opt.Batch)
	if rest := n - (batches-1)*l.opt.Batch; batches > 0 && rest < l.opt.Share.Of {
		batches--
	}
	return batches
}

// Name returns the name of an image.
func (l *Loader) Name(image int) string { return l.images.Name(image) }

// Epoch yields the batches of an epoch, the first one being from. When the loop
// ends, for whatever reason, no goroutine is left.
func (l *Loader) Epoch(epoch, from int) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		if epoch < 0 || from < 0 {
			yield(nil, fmt.Errorf("feed: epoch %d from batch %d on; both are counted from 0", epoch, from))
			return
		}
		p := l.start(epoch, from)
		defer p.stop()
		for m := range p.ahead {
			m.wait.Wait()
			if m.err != nil {
				yield(nil, m.err)
				return
			}
			if !yield(&m.Batch, nil) {
				return
			}
			p.free <- m
		}
	}
}

// order returns the images in the order of an epoch.
func (l *Loader) order(epoch int) []int {
	if l.opt.Shuffle {
		return random.New(l.opt.Seed, "order", uint64(epoch)).Perm(l.images.Len())
	}
	return upTo(l.images.Len())
}

// A pipeline makes the batches of an epoch. A batch goes from free to ahead, image by
// image through jobs, and back to free when the receiver has done with it.
type pipeline struct {
	*Loader
	epoch int
	free  chan *making
	ahead chan *making
	jobs  chan job
	done  chan struct{}
	group sync.WaitGroup
}

// making is a batch and how far it is.
type making struct {
	Batch
	wait sync.WaitGroup // for its images
	once sync.Mutex
	err  error // of the first image, in the batch's order, that failed
	at   int   // that image's place
}

// A job is an image of a batch.
type job struct {
	*making
	at int
}

func (l *Loader) start(epoch, from int) *pipeline {
	p := &pipeline{
		Loader: l, epoch: epoch,
		free:  make(chan *making, l.opt.Prefetch+1),
		ahead: make(chan *making, l.opt.Prefetch+1),
		jobs:  make(chan job),
		done:  make(chan struct{}),
	}
	for range cap(p.free) {
		p.free <- &making{}
	}
	p.group.Go(func() { p.plan(from) })
	for range l.opt.Workers {
		p.group.Go(p.work)
	}
	return p
}

// stop ends all goroutines and waits for them.
func (p *pipeline) stop() {
	close(p.done)
	p.group.Wait()
}

// plan hands out the images of all batches.
func (p *pipeline) plan(from int) {
	defer close(p.ahead)
	defer close(p.jobs)
	order := p.order(p.epoch)
	for b := from; b < p.Batches(); b++ {
		var m *making
		select {
		case m = <-p.free:
		case <-p.done:
			return
		}
		batch := order[b*p.opt.Batch : min((b+1)*p.opt.Batch, len(order))]
		from, to := p.opt.Share.of(len(batch))
		p.prepare(m, batch[from:to])
		p.ahead <- m // has room for every batch there is
		for i := range m.N {
			select {
			case p.jobs <- job{m, i}:
			case <-p.done:
				return
			}
		}
	}
}

// prepare makes room for the images of the given indices.
func (p *pipeline) prepare(m *making, indices []int) {
	n := len(indices)
	m.N, m.C, m.H, m.W, m.Indices, m.err = n, p.images.Channels, p.h, p.w, indices, nil
	m.Images = room(m.Images, n*m.C*m.H*m.W)
	if p.images.Masks {
		m.Targets = room(m.Targets, n*m.H*m.W)
	}
	m.wait.Add(n)
}

func room[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// work makes images until there are no more.
func (p *pipeline) work() {
	var scratch []float32
	for j := range p.jobs {
		if err := p.image(j, &scratch); err != nil {
			j.fail(j.at, err)
		}
		j.wait.Done()
	}
}

// fail notes the error of the image at a place. The one that counts does not depend
// on which worker was faster.
func (m *making) fail(at int, err error) {
	m.once.Lock()
	defer m.once.Unlock()
	if m.err == nil || at < m.at {
		m.err, m.at = err, at
	}
}

// image writes one image and its mask to its place in the batch.
func (p *pipeline) image(j job, scratch *[]float32) (err error) {
	index := j.Indices[j.at]
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("feed: %s: %w", p.Name(index), &PanicError{r, debug.Stack()})
		}
	}()
	img, mask, err := p.images.At(index)
	if err != nil {
		return err
	}
	params := augment.Identity()
	if p.opt.Augment != nil {
		params = p.opt.Augment.Draw(random.New(p.opt.Seed, "transforms", uint64(p.epoch), uint64(index)))
	}
	plan, err := params.Plan(img.Height, img.Width, p.opt.Size)
	if err != nil {
		return fmt.Errorf("feed: %s: %w", p.Name(index), err)
	}
	area := j.H * j.W
	to := j.Images[j.at*j.C*area : (j.at+1)*j.C*area]
	if isPlain(&plan) {
		Values(to, img)
	} else {
		*scratch = room(*scratch, img.Channels*img.Height*img.Width)
		Values(*scratch, img)
		plan.Image(to[:0], *scratch)
	}
	if mask != nil {
		augment.Mask(&plan, j.Targets[j.at*area:j.at*area:(j.at+1)*area], mask)
	}
	return nil
}

// isPlain says that a plan leaves an image as it is.
func isPlain(p *augment.Plan) bool {
	return !p.Resample && !p.Lighting && !p.Flip && p.H == p.SrcH && p.W == p.SrcW
}

// Values writes an image's values in [0, 1], as batches have them.
func Values(to []float32, img *picture.Image) {
	if img.Pix16 != nil {
		for i, v := range img.Pix16 {
			to[i] = float32(v) / (1<<16 - 1)
		}
		return
	}
	for i, v := range img.Pix8 {
		to[i] = unit8[v]
	}
}

// unit8 are the values of 8 bits in [0, 1].
var unit8 = func() (t [1 << 8]float32) {
	for v := range t {
		t[v] = float32(v) / (1<<8 - 1)
	}
	return t
}()

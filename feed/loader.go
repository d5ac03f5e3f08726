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

// LoaderOptions say how a Loader makes batches. The zero value yields the images one
// by one, unchanged and in order.
type LoaderOptions struct {
	Batch int // images per batch; 0 means 1 per process
	Size  int // width and height of the images in a batch; 0 keeps their size

	Shuffle bool            // a new random order in each epoch
	Augment *augment.Config // random transforms of each image in each epoch; nil means none
	Last    Last
	Seed    uint64 // seed of order and transforms

	// Share is the part of each batch that this process gets, if there are
	// several processes; Batch counts the images of all of them together. All
	// processes go through the same epoch in the same order.
	Share Share

	Workers  int // images prepared at a time; 0 means one per core
	Prefetch int // batches prepared ahead; 0 means 2
}

// A Share is one of several parts of each batch. The zero Share is the whole
// batch.
type Share struct {
	Rank int // which part, from 0
	Of   int // parts; 0 means 1
}

// of returns where the share of n images begins and ends. The sizes of two shares
// differ by at most one image.
func (s Share) of(n int) (from, to int) { return s.Rank * n / s.Of, (s.Rank + 1) * n / s.Of }

// A Loader is a [Source] and a [Planner] of batches of a set of images. Several goroutines make
// the batches ahead of their use. A Loader may be used from several goroutines.
//
// The order of an epoch and the transforms of each image come from separate random
// streams, which depend only on seed, epoch and image. So neither the number of
// workers nor the first batch of an epoch changes a batch. Besides the kept
// images, a Loader has Prefetch+1 batches in memory and one image per worker.
type Loader struct {
	images *Images
	opt    LoaderOptions
	h, w   int // size of the images in a batch
}

// NewLoader returns a loader of images. It returns an error if an option is out
// of range.
func NewLoader(images *Images, opt LoaderOptions) (*Loader, error) {
	if opt.Batch < 0 || opt.Size < 0 || opt.Workers < 0 || opt.Prefetch < 0 {
		return nil, fmt.Errorf("feed: batches of %d images of size %d, %d workers, %d batches ahead; none may be negative", opt.Batch, opt.Size, opt.Workers, opt.Prefetch)
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
		return nil, fmt.Errorf("feed: share %d of %d of a batch; shares are counted from 0", opt.Share.Rank, opt.Share.Of)
	}
	if opt.Batch == 0 {
		opt.Batch = opt.Share.Of
	}
	if opt.Batch < opt.Share.Of {
		return nil, fmt.Errorf("feed: a batch of %d images for %d processes; each needs at least one", opt.Batch, opt.Share.Of)
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

// Batches returns the number of batches in an epoch. A last batch with fewer
// images than processes is left out.
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

// Epoch yields the batches of an epoch from batch from on. However the loop
// ends, all goroutines have ended with it.
func (l *Loader) Epoch(epoch, from int) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		if err := checkPosition(epoch, from); err != nil {
			yield(nil, err)
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

func checkPosition(epoch, from int) error {
	if epoch < 0 || from < 0 {
		return fmt.Errorf("feed: epoch %d from batch %d on; neither may be negative", epoch, from)
	}
	return nil
}

// order returns the images in the order of an epoch.
func (l *Loader) order(epoch int) []int {
	if l.opt.Shuffle {
		return random.New(l.opt.Seed, "order", uint64(epoch)).Perm(l.images.Len())
	}
	return upTo(l.images.Len())
}

// indices returns the images of this process in batch b of an epoch of that order.
func (l *Loader) indices(order []int, b int) []int {
	batch := order[b*l.opt.Batch : min((b+1)*l.opt.Batch, len(order))]
	from, to := l.opt.Share.of(len(batch))
	return batch[from:to]
}

// transform returns the transform that an image gets in an epoch.
func (l *Loader) transform(epoch, index int) (augment.Plan, error) {
	params := augment.Identity()
	if l.opt.Augment != nil {
		params = l.opt.Augment.Draw(random.New(l.opt.Seed, "transforms", uint64(epoch), uint64(index)))
	}
	plan, err := params.Plan(l.images.Height, l.images.Width, l.opt.Size)
	if err != nil {
		return plan, fmt.Errorf("feed: %s: %w", l.Name(index), err)
	}
	return plan, nil
}

// A pipeline makes the batches of an epoch. A batch is taken from free and sent to
// ahead, its images are made by the workers that read jobs, and it returns to free
// when the receiver is done with it.
type pipeline struct {
	*Loader
	epoch int
	free  chan *making
	ahead chan *making
	jobs  chan job
	done  chan struct{}
	group sync.WaitGroup
}

// making is a batch that is being made, and its state.
type making struct {
	Batch
	wait sync.WaitGroup // until its images are done
	once sync.Mutex
	err  error // the error of the first image, in the order of the batch, that failed
	at   int   // the place of that image
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

// plan sends the images of all batches to the workers.
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
		p.prepare(m, p.indices(order, b))
		p.ahead <- m // never blocks: it has room for every batch
		for i := range m.N {
			select {
			case p.jobs <- job{m, i}:
			case <-p.done:
				return
			}
		}
	}
}

// prepare gives the slices of a batch the size for the images with these
// indices.
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

// fail keeps the error of the image with the lowest place. So the error of a batch
// does not depend on which worker was faster.
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
	plan, err := p.transform(p.epoch, index)
	if err != nil {
		return err
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

// isPlain returns whether a plan leaves an image unchanged.
func isPlain(p *augment.Plan) bool {
	return !p.Resample && !p.Lighting && !p.Flip && p.H == p.SrcH && p.W == p.SrcW
}

// Values writes the values of an image as float32 in [0, 1], as in a batch.
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

// unit8 maps each 8-bit value to [0, 1].
var unit8 = func() (t [1 << 8]float32) {
	for v := range t {
		t[v] = float32(v) / (1<<8 - 1)
	}
	return t
}()

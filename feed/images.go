package feed

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/picture"
	"golang.org/x/sync/errgroup"
)

// An Item is an image that is not read yet.
type Item struct {
	Name string // for messages and tables

	// Load reads the image and its mask of classes, row-major. The mask is nil if it
	// is not known. Load is called from any goroutine, more than once if the image is
	// not kept in memory, and must return the same values each time.
	Load func() (img *picture.Image, mask []uint8, err error)
}

// Still returns an Item for an image that is already in memory.
func Still(name string, img *picture.Image, mask []uint8) Item {
	return Item{name, func() (*picture.Image, []uint8, error) { return img, mask, nil }}
}

// Samples returns Items that read the samples for a task.
func Samples(samples []data.Sample, task data.Task) []Item {
	items := make([]Item, len(samples))
	for i, s := range samples {
		items[i] = Item{s.Name, func() (*picture.Image, []uint8, error) { return s.Load(task) }}
	}
	return items
}

// ReadOptions are the choices of [Read]; nil means all defaults.
type ReadOptions struct {
	// Memory is the number of bytes of images and masks that may be kept in memory; 0
	// means no limit. Images that do not fit are read again whenever they are needed.
	// The kept images never change: every image is needed once per epoch, so another
	// choice would not save any reading.
	Memory int64

	Classes int // masks may hold classes below this and data.Ignored; 0 means any class
	Workers int // images read at a time; 0 means one per core
}

// Images is a set of images that have the same size, channels and bits. Either all
// have masks or none has. It may be used from several goroutines.
type Images struct {
	*set
	indices []int // of the images in the set
}

// A set holds what all subsets share.
type set struct {
	Channels, Height, Width int
	Bits                    int  // of a value, 8 or 16
	Masks                   bool // the classes of the pixels are known

	items   []Item
	held    []held
	facts   []facts
	classes int
}

// held is an image in memory; img is nil if the image is not kept.
type held struct {
	img  *picture.Image
	mask []uint8
}

func (h held) bytes() int64 { return int64(len(h.img.Pix8) + 2*len(h.img.Pix16) + len(h.mask)) }

// facts are what Read computed about each image, kept or not.
type facts struct {
	sum, squares []uint64 // of the values, per channel
	pixels       []int    // of each class, up to the highest one in the mask
	digest       uint64   // of the values
}

// Read reads every item once and returns the set.
//
// It returns an error that names the image if an image cannot be read, has more or
// fewer values than its size needs, differs from the first one in size, channels,
// bits or in having a mask, or has a class that does not exist.
func Read(ctx context.Context, items []Item, opt *ReadOptions) (*Images, error) {
	if opt == nil {
		opt = &ReadOptions{}
	}
	if opt.Memory < 0 || opt.Classes < 0 || opt.Workers < 0 {
		return nil, fmt.Errorf("feed: %d bytes of memory, %d classes, %d workers; none may be negative", opt.Memory, opt.Classes, opt.Workers)
	}
	n := len(items)
	s := &set{items: items, held: make([]held, n), facts: make([]facts, n), classes: opt.Classes}
	all := &Images{s, upTo(n)}
	if n == 0 {
		return all, nil
	}
	first, err := load(items[0])
	if err != nil {
		return nil, err
	}
	s.Channels, s.Height, s.Width, s.Bits = first.img.Channels, first.img.Height, first.img.Width, first.img.Bits()
	s.Masks = first.mask != nil
	fit := n
	if opt.Memory > 0 {
		fit = int(min(opt.Memory/first.bytes(), int64(n)))
	}
	g, going := errgroup.WithContext(ctx)
	g.SetLimit(workers(opt.Workers))
	for i := range items {
		if going.Err() != nil {
			break
		}
		g.Go(func() error {
			h, err := s.read(i)
			if err != nil {
				return err
			}
			s.facts[i] = factsOf(h)
			if i < fit {
				s.held[i] = h
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return all, ctx.Err()
}

func upTo(n int) []int {
	indices := make([]int, n)
	for i := range indices {
		indices[i] = i
	}
	return indices
}

func workers(n int) int {
	if n == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}

// load calls the Load of an item and checks the result by itself, without
// comparing it with other images.
func load(it Item) (h held, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("feed: %s: %w", it.Name, &PanicError{r, debug.Stack()})
		}
	}()
	img, mask, err := it.Load()
	switch {
	case err != nil:
		return held{}, fmt.Errorf("feed: %s: %w", it.Name, err)
	case img == nil:
		return held{}, fmt.Errorf("feed: %s: Load returned neither an image nor an error", it.Name)
	}
	if err := img.Check(); err != nil {
		return held{}, fmt.Errorf("feed: %s: %w", it.Name, err)
	}
	if mask != nil && len(mask) != img.Width*img.Height {
		return held{}, fmt.Errorf("feed: %s: the mask has %d values, wanted %d for %dx%d pixels", it.Name, len(mask), img.Width*img.Height, img.Width, img.Height)
	}
	return held{img, mask}, nil
}

// read loads image i and checks that it has the size, channels, bits and
// classes of the set.
func (s *set) read(i int) (held, error) {
	it := s.items[i]
	h, err := load(it)
	if err != nil {
		return held{}, err
	}
	m := h.img
	switch {
	case m.Width != s.Width || m.Height != s.Height:
		return held{}, fmt.Errorf("feed: %s is %dx%d, but %s is %dx%d; all images must have one size", it.Name, m.Width, m.Height, s.items[0].Name, s.Width, s.Height)
	case m.Channels != s.Channels:
		return held{}, fmt.Errorf("feed: %s has %d channels, but %s has %d", it.Name, m.Channels, s.items[0].Name, s.Channels)
	case m.Bits() != s.Bits:
		return held{}, fmt.Errorf("feed: %s has %d bits, but %s has %d; their values would mean different things", it.Name, m.Bits(), s.items[0].Name, s.Bits)
	case (h.mask != nil) != s.Masks:
		return held{}, fmt.Errorf("feed: of %s and %s only one has a mask", it.Name, s.items[0].Name)
	}
	if s.classes > 0 {
		for p, v := range h.mask {
			if int(v) >= s.classes && v != data.Ignored {
				return held{}, fmt.Errorf("feed: %s: the mask has class %d at row %d, column %d, but there are only %d classes", it.Name, v, p/s.Width, p%s.Width, s.classes)
			}
		}
	}
	return h, nil
}

// A PanicError is a panic that happened while an image was read or transformed,
// returned as an error.
type PanicError struct {
	Value any    // the value of the panic
	Stack []byte // the stack of the goroutine
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

func factsOf(h held) (f facts) {
	f.sum, f.squares = make([]uint64, h.img.Channels), make([]uint64, h.img.Channels)
	area := h.img.Width * h.img.Height
	for c := range h.img.Channels {
		if h.img.Pix16 != nil {
			f.sum[c], f.squares[c] = sums(h.img.Pix16[c*area : (c+1)*area])
		} else {
			f.sum[c], f.squares[c] = sums(h.img.Pix8[c*area : (c+1)*area])
		}
	}
	var pixels [data.Ignored]int
	highest := -1
	for _, v := range h.mask {
		if v != data.Ignored {
			pixels[v]++
			highest = max(highest, int(v))
		}
	}
	f.pixels = append([]int(nil), pixels[:highest+1]...)
	f.digest = digestOf(h.img)
	return f
}

func digestOf(img *picture.Image) uint64 {
	h := sha256.New()
	fmt.Fprintf(h, "%d channels of %dx%d, %d bits\n", img.Channels, img.Width, img.Height, img.Bits())
	h.Write(img.Pix8)
	var row []byte
	for some := range slices.Chunk(img.Pix16, img.Width) {
		row = row[:0]
		for _, v := range some {
			row = binary.BigEndian.AppendUint16(row, v)
		}
		h.Write(row)
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// sums are exact for up to 2^32 values.
func sums[T uint8 | uint16](values []T) (sum, squares uint64) {
	for _, v := range values {
		sum += uint64(v)
		squares += uint64(v) * uint64(v)
	}
	return sum, squares
}

// Len returns the number of images.
func (m *Images) Len() int { return len(m.indices) }

// Name returns the name of image i.
func (m *Images) Name(i int) string { return m.items[m.indices[i]].Name }

// Subset returns the images with the given indices, in that order. Images in
// memory are shared, not copied.
func (m *Images) Subset(indices []int) *Images {
	sub := &Images{m.set, make([]int, len(indices))}
	for i, j := range indices {
		sub.indices[i] = m.indices[j]
	}
	return sub
}

// At returns image i and its mask, which is nil if masks are not known. Both are
// shared and must not be changed.
func (m *Images) At(i int) (img *picture.Image, mask []uint8, err error) {
	h := m.held[m.indices[i]]
	if h.img == nil {
		h, err = m.read(m.indices[i])
	}
	return h.img, h.mask, err
}

// Bytes returns the number of bytes of all images and masks, in memory or not.
func (m *Images) Bytes() int64 {
	perPixel := m.Channels * m.Bits / 8
	if m.Masks {
		perPixel++
	}
	return int64(m.Len()) * int64(m.Height) * int64(m.Width) * int64(perPixel)
}

// Held returns the number of images kept in memory.
func (m *Images) Held() (n int) {
	for _, i := range m.indices {
		if m.held[i].img != nil {
			n++
		}
	}
	return n
}

// Digest returns 64 bits that identify image i whatever its name and file: the
// beginning of the SHA-256 of its size and values.
func (m *Images) Digest(i int) uint64 { return m.facts[m.indices[i]].digest }

// Pixels returns the number of pixels of image i with that class; 0 if masks are not
// known.
func (m *Images) Pixels(i int, class uint8) int {
	if p := m.facts[m.indices[i]].pixels; int(class) < len(p) {
		return p[class]
	}
	return 0
}

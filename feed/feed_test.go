package feed_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/random"
	"github.com/stretchr/testify/require"
)

// Width and height differ, so that a swapped axis cannot pass.
const width, height = 7, 5

// film returns image i of a set: all values of all images differ, as far as 8 bits
// allow. Its mask has the classes 0 to 2.
func film(i, channels int) (*picture.Image, []uint8) {
	img := &picture.Image{Width: width, Height: height, Channels: channels, Pix8: make([]uint8, channels*width*height)}
	for p := range img.Pix8 {
		img.Pix8[p] = uint8(11*i + p)
	}
	mask := make([]uint8, width*height)
	for p := range mask {
		mask[p] = uint8((p + i) % 3)
	}
	return img, mask
}

func films(n, channels int) []feed.Item {
	items := make([]feed.Item, n)
	for i := range items {
		img, mask := film(i, channels)
		items[i] = feed.Still(fmt.Sprintf("film%d", i), img, mask)
	}
	return items
}

func read(t testing.TB, items []feed.Item, opt *feed.ReadOptions) *feed.Images {
	t.Helper()
	images, err := feed.Read(context.Background(), items, opt)
	require.NoError(t, err)
	return images
}

func loader(t testing.TB, images *feed.Images, opt feed.LoaderOptions) *feed.Loader {
	t.Helper()
	l, err := feed.NewLoader(images, opt)
	require.NoError(t, err)
	return l
}

// collect returns copies of the batches of an epoch.
func collect(t testing.TB, l *feed.Loader, epoch, from int) (batches []feed.Batch) {
	t.Helper()
	for b, err := range l.Epoch(epoch, from) {
		require.NoError(t, err)
		require.NoError(t, b.Check(false))
		batches = append(batches, feed.Batch{N: b.N, C: b.C, H: b.H, W: b.W,
			Images: slices.Clone(b.Images), Targets: slices.Clone(b.Targets), Indices: slices.Clone(b.Indices)})
	}
	return batches
}

func order(batches []feed.Batch) (indices []int) {
	for _, b := range batches {
		indices = append(indices, b.Indices...)
	}
	return indices
}

// Without options the images come one by one, in order; each value v becomes
// v/255, and masks are unchanged.
func TestInOrder(t *testing.T) {
	for _, channels := range []int{1, 3, 4} {
		l := loader(t, read(t, films(5, channels), nil), feed.LoaderOptions{Batch: 2})
		require.Equal(t, 5, l.Len())
		require.Equal(t, 3, l.Batches())
		require.Equal(t, "film3", l.Name(3))
		batches := collect(t, l, 0, 0)
		require.Len(t, batches, 3)
		require.Equal(t, []int{0, 1, 2, 3, 4}, order(batches))
		for _, b := range batches {
			require.Equal(t, []int{len(b.Indices), channels, height, width}, []int{b.N, b.C, b.H, b.W})
			for k, i := range b.Indices {
				img, mask := film(i, channels)
				area := width * height
				for p, v := range img.Pix8 {
					require.Equal(t, float32(v)/255, b.Images[k*channels*area+p])
				}
				require.Equal(t, mask, b.Targets[k*area:(k+1)*area])
			}
		}
	}
}

// Values of 16 bits are divided by 65535, and a set without masks has no targets.
func Test16Bits(t *testing.T) {
	img := &picture.Image{Width: 2, Height: 1, Channels: 2, Pix16: []uint16{0, 256, 40000, 65535}}
	batches := collect(t, loader(t, read(t, []feed.Item{feed.Still("deep", img, nil)}, nil), feed.LoaderOptions{}), 0, 0)
	require.Equal(t, []float32{0, 256. / 65535, 40000. / 65535, 1}, batches[0].Images)
	require.Nil(t, batches[0].Targets)
}

// Shuffling and transforming are independent: each gives the same with and
// without the other.
func TestShuffleAndAugment(t *testing.T) {
	images := read(t, films(9, 2), nil)
	byImage := func(batches []feed.Batch) map[int][]float32 {
		m := map[int][]float32{}
		for _, b := range batches {
			for k, i := range b.Indices {
				n := len(b.Images) / b.N
				m[i] = b.Images[k*n : (k+1)*n]
			}
		}
		return m
	}
	const epoch = 3
	made := map[[2]bool][]feed.Batch{}
	for _, shuffle := range []bool{false, true} {
		for _, transform := range []bool{false, true} {
			opt := feed.LoaderOptions{Batch: 4, Shuffle: shuffle, Seed: 5}
			if transform {
				opt.Augment = new(augment.Default())
			}
			made[[2]bool{shuffle, transform}] = collect(t, loader(t, images, opt), epoch, 0)
		}
	}
	plain, shuffled := made[[2]bool{false, false}], made[[2]bool{true, false}]
	transformed, both := made[[2]bool{false, true}], made[[2]bool{true, true}]
	require.Equal(t, order(plain), order(transformed))
	require.Equal(t, order(shuffled), order(both))
	require.NotEqual(t, order(plain), order(shuffled))
	require.ElementsMatch(t, order(plain), order(shuffled), "each image once")
	require.Equal(t, byImage(plain), byImage(shuffled))
	require.Equal(t, byImage(transformed), byImage(both))
	require.NotEqual(t, byImage(plain), byImage(transformed))

	// Drawn and applied by hand.
	for _, b := range both {
		for k, i := range b.Indices {
			plan, err := augment.Default().Draw(random.New(5, "transforms", epoch, uint64(i))).Plan(height, width, 0)
			require.NoError(t, err)
			img, mask := film(i, 2)
			src := make([]float32, len(img.Pix8))
			for p, v := range img.Pix8 {
				src[p] = float32(v) / 255
			}
			require.Equal(t, plan.Image(nil, src), byImage(both)[i])
			require.Equal(t, augment.Mask(&plan, nil, mask), b.Targets[k*len(mask):(k+1)*len(mask)])
		}
	}
}

// Another epoch or seed gives another order and other transforms; the same gives the
// same. Epochs are told apart over the whole run.
func TestSeeds(t *testing.T) {
	images := read(t, films(20, 1), nil)
	epoch := func(seed uint64, e int) []feed.Batch {
		return collect(t, loader(t, images, feed.LoaderOptions{Batch: 20, Shuffle: true, Augment: new(augment.Default()), Seed: seed}), e, 0)
	}
	first := epoch(1, 0)
	require.Equal(t, first, epoch(1, 0))
	for _, other := range [][]feed.Batch{epoch(1, 1), epoch(2, 0)} {
		require.NotEqual(t, order(first), order(other))
		require.NotEqual(t, first[0].Images, other[0].Images)
	}
}

// With a size, every image and its mask are scaled and cropped to it.
func TestSize(t *testing.T) {
	l := loader(t, read(t, films(2, 1), nil), feed.LoaderOptions{Size: 10})
	b := collect(t, l, 0, 0)[1]
	require.Equal(t, []int{1, 10, 10}, []int{b.C, b.H, b.W})
	plan, err := augment.Identity().Plan(height, width, 10)
	require.NoError(t, err)
	_, mask := film(1, 1)
	require.Equal(t, augment.Mask(&plan, nil, mask), b.Targets)
}

func TestLast(t *testing.T) {
	for _, c := range []struct {
		images, batch int
		last          feed.Last
		sizes         []int
	}{
		{8, 4, feed.KeepLast, []int{4, 4}},
		{8, 4, feed.DropLone, []int{4, 4}},
		{8, 4, feed.DropLast, []int{4, 4}},
		{9, 4, feed.KeepLast, []int{4, 4, 1}},
		{9, 4, feed.DropLone, []int{4, 4}},
		{9, 4, feed.DropLast, []int{4, 4}},
		{10, 4, feed.DropLone, []int{4, 4, 2}},
		{10, 4, feed.DropLast, []int{4, 4}},
		{3, 1, feed.DropLone, []int{1, 1, 1}}, // a batch of one is as it was asked for
		{1, 4, feed.DropLone, []int{1}},       // nothing else is there
		{3, 4, feed.DropLast, nil},
		{0, 4, feed.KeepLast, nil},
	} {
		l := loader(t, read(t, films(c.images, 1), nil), feed.LoaderOptions{Batch: c.batch, Last: c.last})
		var sizes []int
		for _, b := range collect(t, l, 0, 0) {
			sizes = append(sizes, b.N)
		}
		require.Equal(t, c.sizes, sizes, "%v", c)
		require.Equal(t, len(c.sizes), l.Batches())
	}
	for _, l := range []feed.Last{feed.KeepLast, feed.DropLone, feed.DropLast} {
		word, err := l.MarshalText()
		require.NoError(t, err)
		var back feed.Last
		require.NoError(t, back.UnmarshalText(word))
		require.Equal(t, l, back)
		require.Equal(t, l.String(), string(word))
	}
	var l feed.Last
	require.ErrorContains(t, l.UnmarshalText([]byte("dorp")), `"dorp"; wanted keep, drop_lone or drop`)
	_, err := feed.Last(7).MarshalText()
	require.Error(t, err)
}

// The same position gives the same bytes, whatever the number of workers and
// prefetched batches, the images in memory, and the first batch of the epoch.
func TestPositions(t *testing.T) {
	items := films(23, 2)
	opt := feed.LoaderOptions{Batch: 3, Shuffle: true, Augment: new(augment.Default()), Seed: 8}
	want := collect(t, loader(t, read(t, items, nil), opt), 6, 0)
	for _, workers := range []int{1, 2, 7} {
		for _, memory := range []int64{0, 400} { // an image has 2*35 bytes and its mask 35
			images := read(t, items, &feed.ReadOptions{Memory: memory, Workers: workers})
			opt.Workers, opt.Prefetch = workers, workers
			l := loader(t, images, opt)
			for from := range l.Batches() + 2 {
				require.Equal(t, want[min(from, len(want)):], append([]feed.Batch{}, collect(t, l, 6, from)...), "%d workers, from %d", workers, from)
			}
		}
	}
}

// An epoch that begins at a later batch does not prepare the batches before.
func TestFromSkips(t *testing.T) {
	var loads atomic.Int32
	items := films(12, 1)
	for i := range items {
		load := items[i].Load
		items[i].Load = func() (*picture.Image, []uint8, error) { loads.Add(1); return load() }
	}
	l := loader(t, read(t, items, &feed.ReadOptions{Memory: 1}), feed.LoaderOptions{Batch: 2, Shuffle: true})
	loads.Store(0)
	require.Len(t, collect(t, l, 0, 4), 2)
	require.EqualValues(t, 4, loads.Load())
}

// Several loops over one loader at a time do not disturb each other.
func TestConcurrentEpochs(t *testing.T) {
	l := loader(t, read(t, films(11, 1), nil), feed.LoaderOptions{Batch: 2, Shuffle: true, Workers: 2})
	want := [][]feed.Batch{collect(t, l, 0, 0), collect(t, l, 1, 0)}
	for a, err := range l.Epoch(0, 0) {
		require.NoError(t, err)
		require.Equal(t, want[1], collect(t, l, 1, 0))
		require.Equal(t, want[0][0].Images, a.Images, "a batch is valid until the next one is asked for")
		break
	}
}

// noMoreGoroutines fails if there are more goroutines than before. It waits a little,
// because a goroutine may still be ending after it has closed its channel.
func noMoreGoroutines(t *testing.T, before int) {
	t.Helper()
	for try := 0; try < 1000 && runtime.NumGoroutine() > before; try++ {
		time.Sleep(time.Millisecond)
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), before)
}

// After a loop ends by break, an error or a panic, no goroutine is left.
func TestNoGoroutineLeft(t *testing.T) {
	l := loader(t, read(t, films(40, 1), nil), feed.LoaderOptions{Batch: 2, Workers: 5})
	before := runtime.NumGoroutine()
	for range 10 {
		for range l.Epoch(0, 0) {
			break
		}
		require.PanicsWithValue(t, "enough", func() {
			for range l.Epoch(0, 3) {
				panic("enough")
			}
		})
		collect(t, l, 0, 17)
	}
	noMoreGoroutines(t, before)
}

// Errors in images are found when the set is read.
func TestReadRefuses(t *testing.T) {
	odd := func(change func(img *picture.Image, mask *[]uint8)) []feed.Item {
		items := films(4, 2)
		img, mask := film(2, 2)
		change(img, &mask)
		items[2] = feed.Still("odd", img, mask)
		return items
	}
	failing := films(4, 2)
	failing[2] = feed.Item{Name: "odd", Load: func() (*picture.Image, []uint8, error) { return nil, nil, errors.New("torn") }}
	panicking := films(4, 2)
	panicking[2] = feed.Item{Name: "odd", Load: func() (*picture.Image, []uint8, error) { panic("out of order") }}
	for want, items := range map[string][]feed.Item{
		"has 69 values": odd(func(m *picture.Image, _ *[]uint8) { m.Pix8 = m.Pix8[1:] }),
		"the mask has 34 values, wanted 35 for 7x5 pixels":                      odd(func(_ *picture.Image, mask *[]uint8) { *mask = (*mask)[1:] }),
		"odd is 5x7, but film0 is 7x5":                                          odd(func(m *picture.Image, _ *[]uint8) { m.Width, m.Height = 5, 7 }),
		"odd has 1 channels, but film0 has 2":                                   odd(func(m *picture.Image, _ *[]uint8) { m.Channels, m.Pix8 = 1, m.Pix8[:35] }),
		"odd has 16 bits, but film0 has 8":                                      odd(func(m *picture.Image, _ *[]uint8) { m.Pix8, m.Pix16 = nil, make([]uint16, 70) }),
		"of odd and film0 only one has a mask":                                  odd(func(_ *picture.Image, mask *[]uint8) { *mask = nil }),
		"the mask has class 3 at row 1, column 2, but there are only 3 classes": odd(func(_ *picture.Image, mask *[]uint8) { (*mask)[9] = 3 }),
		"feed: odd: torn":                                                       failing,
		"feed: odd: panic: out of order":                                        panicking,
		"neither an image nor an error":                                         {{Name: "odd", Load: func() (*picture.Image, []uint8, error) { return nil, nil, nil }}},
	} {
		_, err := feed.Read(context.Background(), items, &feed.ReadOptions{Classes: 3})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "odd")
	}
	_, err := feed.Read(context.Background(), nil, &feed.ReadOptions{Memory: -1})
	require.ErrorContains(t, err, "-1 bytes")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = feed.Read(ctx, films(3, 1), nil)
	require.ErrorIs(t, err, context.Canceled)
}

// A pixel of unknown class is not counted as one that does not exist.
func TestIgnored(t *testing.T) {
	img, mask := film(0, 1)
	mask[4] = 255
	images := read(t, []feed.Item{feed.Still("a", img, mask)}, &feed.ReadOptions{Classes: 3})
	require.Equal(t, []int{12, 11, 11, 0}, []int{images.Pixels(0, 0), images.Pixels(0, 1), images.Pixels(0, 2), images.Pixels(0, 255)})
}

// If an image fails when it is read again, by an error, a panic or because it has
// changed, the epoch ends with an error that names it. Of several images, it is the
// first in the batch, whichever worker was faster.
func TestLoaderErrors(t *testing.T) {
	for want, fail := range map[string]func() (*picture.Image, []uint8, error){
		"torn":                func() (*picture.Image, []uint8, error) { return nil, nil, errors.New("torn") },
		"panic: out of order": func() (*picture.Image, []uint8, error) { panic("out of order") },
		"film4 is 1x1, but film0 is 7x5": func() (*picture.Image, []uint8, error) {
			return &picture.Image{Width: 1, Height: 1, Channels: 1, Pix8: []uint8{1}}, []uint8{0}, nil
		},
	} {
		broken := false
		items := films(9, 1)
		for _, i := range []int{4, 5} {
			good := items[i].Load
			items[i].Load = func() (*picture.Image, []uint8, error) {
				if broken {
					return fail()
				}
				return good()
			}
		}
		l := loader(t, read(t, items, &feed.ReadOptions{Memory: 1}), feed.LoaderOptions{Batch: 3, Workers: 3})
		broken = true
		before := runtime.NumGoroutine()
		n := 0
		var got error
		for b, err := range l.Epoch(0, 0) {
			require.NoError(t, got, "nothing comes after an error")
			if got = err; err == nil {
				require.Equal(t, 3, b.N)
				n++
			}
		}
		require.Equal(t, 1, n, "the batch before is good")
		require.ErrorContains(t, got, want)
		require.ErrorContains(t, got, "film4")
		noMoreGoroutines(t, before)
		if p := new(feed.PanicError); errors.As(got, &p) {
			require.Contains(t, string(p.Stack), "TestLoaderErrors")
		}
	}
	l := loader(t, read(t, films(2, 1), nil), feed.LoaderOptions{})
	for b, err := range l.Epoch(-1, 0) {
		require.Nil(t, b)
		require.ErrorContains(t, err, "epoch -1")
	}
}

func TestLoaderRefuses(t *testing.T) {
	images := read(t, films(2, 1), nil)
	for want, opt := range map[string]feed.LoaderOptions{
		"batches of -1": {Batch: -1},
		"size -2":       {Size: -2},
		"-3 workers":    {Workers: -3},
		"-4 batches":    {Prefetch: -4},
		"last batch 9":  {Last: 9},
		"MaxWarp":       {Augment: &augment.Config{MaxWarp: 7}},
	} {
		_, err := feed.NewLoader(images, opt)
		require.ErrorContains(t, err, want)
	}
}

func TestBatchCheck(t *testing.T) {
	good := func() *feed.Batch {
		return &feed.Batch{N: 2, C: 1, H: 3, W: 2, Images: make([]float32, 12), Targets: make([]uint8, 12), Indices: []int{4, 0}}
	}
	require.NoError(t, good().Check(true))
	for want, change := range map[string]func(*feed.Batch){
		"2x1x3x2 has 11 image values":     func(b *feed.Batch) { b.Images = b.Images[1:] },
		"-2x1x-3x2":                       func(b *feed.Batch) { b.N, b.H = -2, -3 },
		"3x2 has 11 target values":        func(b *feed.Batch) { b.Targets = b.Targets[1:] },
		"3x2 has 0 target values":         func(b *feed.Batch) { b.Targets = nil },
		"batch of 2 images has 1 indices": func(b *feed.Batch) { b.Indices = b.Indices[1:] },
	} {
		b := good()
		change(b)
		require.ErrorContains(t, b.Check(true), want)
	}
	b := good()
	b.Targets, b.Indices = nil, nil
	require.NoError(t, b.Check(false))
}

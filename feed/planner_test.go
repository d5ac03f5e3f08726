package feed_test

import (
	"sync/atomic"
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/feed"
	"github.com/stretchr/testify/require"
)

// apply makes the pixels of a planned batch with package augment.
func apply(t *testing.T, images *feed.Images, b *feed.Batch) feed.Batch {
	t.Helper()
	require.NoError(t, b.Check(true))
	require.Nil(t, b.Images)
	require.Nil(t, b.Targets)
	made := feed.Batch{N: b.N, C: b.C, H: b.H, W: b.W, Indices: append([]int{}, b.Indices...)}
	for k, i := range b.Indices {
		img, mask, err := images.At(i)
		require.NoError(t, err)
		values := make([]float32, img.Channels*img.Height*img.Width)
		feed.Values(values, img)
		made.Images = append(made.Images, b.Plans[k].Image(nil, values)...)
		if mask != nil {
			made.Targets = append(made.Targets, augment.Mask(&b.Plans[k], nil, mask)...)
		}
	}
	return made
}

// Planned batches, applied by package augment, are exactly the batches of Epoch: with
// and without order, transforms, a change of size, shares, a smaller last batch and
// masks, and from any batch on.
func TestPlans(t *testing.T) {
	unmasked := films(9, 1)
	for i := range unmasked {
		img, _ := film(i, 1)
		unmasked[i] = feed.Still(unmasked[i].Name, img, nil)
	}
	strong := augment.Config{PFlip: 0.5, PAffine: 0.5, PLighting: 0.5, MaxWarp: 0.3, MaxRotate: 40, MaxZoom: 1.5, MaxBrightness: 0.4, MaxContrast: 0.4, Padding: augment.Border}
	for name, c := range map[string]struct {
		items []feed.Item
		opt   feed.LoaderOptions
	}{
		"plain":     {films(9, 2), feed.LoaderOptions{Batch: 4}},
		"augmented": {films(9, 2), feed.LoaderOptions{Batch: 4, Shuffle: true, Augment: new(augment.Default()), Seed: 7}},
		"strong":    {films(9, 3), feed.LoaderOptions{Batch: 2, Shuffle: true, Augment: &strong, Seed: 8, Last: feed.DropLone}},
		"larger":    {films(9, 1), feed.LoaderOptions{Batch: 4, Size: 10, Augment: new(augment.Default()), Last: feed.DropLast}},
		"averaged":  {films(9, 1), feed.LoaderOptions{Batch: 4, Size: 2, Augment: new(augment.Default())}},
		"share":     {films(11, 1), feed.LoaderOptions{Batch: 4, Shuffle: true, Augment: new(augment.Default()), Share: feed.Share{Rank: 1, Of: 3}}},
		"no masks":  {unmasked, feed.LoaderOptions{Batch: 4, Augment: new(augment.Default())}},
	} {
		t.Run(name, func(t *testing.T) {
			images := read(t, c.items, nil)
			l := loader(t, images, c.opt)
			require.Same(t, images, l.Images())
			for epoch := range 3 {
				for from := range l.Batches() + 2 {
					var got []feed.Batch
					for b, err := range l.Plans(epoch, from) {
						require.NoError(t, err)
						got = append(got, apply(t, images, b))
					}
					require.Equal(t, collect(t, l, epoch, from), got, "epoch %d from %d", epoch, from)
				}
			}
		})
	}
}

// Plans reads no image, may be left at any batch, and refuses what Epoch refuses.
func TestPlansReadNothing(t *testing.T) {
	var loads atomic.Int32
	items := films(6, 1)
	for i := range items {
		load := items[i].Load
		items[i].Load = func() (*picture.Image, []uint8, error) { loads.Add(1); return load() }
	}
	l := loader(t, read(t, items, &feed.ReadOptions{Memory: 1}), feed.LoaderOptions{Batch: 2, Shuffle: true, Augment: new(augment.Default())})
	loads.Store(0)
	for range l.Plans(0, 0) {
		break
	}
	for range l.Plans(1, 0) {
	}
	require.Zero(t, loads.Load())
	for b, err := range l.Plans(0, -1) {
		require.Nil(t, b)
		require.ErrorContains(t, err, "batch -1")
	}
}

func TestPlannedBatchCheck(t *testing.T) {
	good := func() *feed.Batch {
		plan, err := augment.Identity().Plan(3, 2, 0)
		require.NoError(t, err)
		return &feed.Batch{N: 2, C: 1, H: 3, W: 2, Indices: []int{4, 0}, Plans: []augment.Plan{plan, plan}}
	}
	require.NoError(t, good().Check(true))
	for want, change := range map[string]func(*feed.Batch){
		"has 1 plans, 2 indices":                  func(b *feed.Batch) { b.Plans = b.Plans[1:] },
		"has 2 plans, 0 indices":                  func(b *feed.Batch) { b.Indices = nil },
		"6 image values":                          func(b *feed.Batch) { b.Images = make([]float32, 6) },
		"images of 2x2 has a plan for one of 3x2": func(b *feed.Batch) { b.H = 2 },
	} {
		b := good()
		change(b)
		require.ErrorContains(t, b.Check(true), want)
	}
}

// The bytes of a set do not depend on what is in memory.
func TestBytes(t *testing.T) {
	deep := &picture.Image{Width: 2, Height: 3, Channels: 2, Pix16: make([]uint16, 12)}
	require.EqualValues(t, 3*(2*35+35), read(t, films(3, 2), &feed.ReadOptions{Memory: 1}).Bytes())
	require.EqualValues(t, 24, read(t, []feed.Item{feed.Still("deep", deep, nil)}, nil).Bytes())
	require.Zero(t, read(t, nil, nil).Bytes())
}

package feed_test

import (
	"fmt"
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/feed"
	"github.com/stretchr/testify/require"
)

// An epoch of batches of 16 films of 256x256, for training and for validation.
// Batches reuse memory; B/op is for the whole epoch.
func BenchmarkEpoch(b *testing.B) {
	const side, n = 256, 128
	items := make([]feed.Item, n)
	for i := range items {
		img := &picture.Image{Width: side, Height: side, Channels: 1, Pix8: make([]uint8, side*side)}
		for p := range img.Pix8 {
			img.Pix8[p] = uint8(p * (i + 3) >> 7)
		}
		items[i] = feed.Still(fmt.Sprint(i), img, make([]uint8, side*side))
	}
	images := read(b, items, nil)
	for name, opt := range map[string]feed.LoaderOptions{
		"plain":     {Batch: 16},
		"augmented": {Batch: 16, Shuffle: true, Augment: new(augment.Default())},
	} {
		b.Run(name, func(b *testing.B) {
			l := loader(b, images, opt)
			b.SetBytes(n * side * side)
			b.ReportAllocs()
			for e := range b.N {
				for _, err := range l.Epoch(e, 0) {
					require.NoError(b, err)
				}
			}
		})
	}
}

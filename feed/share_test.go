package feed_test

import (
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/feed"
	"github.com/stretchr/testify/require"
)

// The shares of a batch together are the batch of a single process, with the
// same transforms. A last batch that is too small for all processes is left
// out.
func TestShares(t *testing.T) {
	images := read(t, films(11, 1), nil)
	opt := feed.LoaderOptions{Batch: 4, Shuffle: true, Augment: new(augment.Default()), Seed: 5}
	whole := collect(t, loader(t, images, opt), 2, 0)
	require.Len(t, whole, 3)
	for _, of := range []int{2, 3, 4} {
		wanted := 3
		if of == 4 { // 3 images are left for 4 processes
			wanted = 2
		}
		joined := make([]feed.Batch, wanted)
		for rank := range of {
			opt.Share = feed.Share{Rank: rank, Of: of}
			parts := collect(t, loader(t, images, opt), 2, 0)
			require.Len(t, parts, wanted, "part %d of %d", rank, of)
			for b, part := range parts {
				joined[b].Indices = append(joined[b].Indices, part.Indices...)
				joined[b].Images = append(joined[b].Images, part.Images...)
				joined[b].Targets = append(joined[b].Targets, part.Targets...)
			}
		}
		for b := range joined {
			require.Equal(t, whole[b].Indices, joined[b].Indices, "batch %d in %d parts", b, of)
			require.Equal(t, whole[b].Images, joined[b].Images)
			require.Equal(t, whole[b].Targets, joined[b].Targets)
		}
	}
	for message, opt := range map[string]feed.LoaderOptions{
		"share 4 of 4":             {Batch: 8, Share: feed.Share{Rank: 4, Of: 4}},
		"4 images for 8 processes": {Batch: 4, Share: feed.Share{Rank: 0, Of: 8}},
	} {
		_, err := feed.NewLoader(images, opt)
		require.ErrorContains(t, err, message)
	}
}

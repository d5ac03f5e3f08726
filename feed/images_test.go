package feed_test

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/feed"
	"github.com/stretchr/testify/require"
)

// A subset has its own order, numbers, statistics and pixel counts.
func TestSubset(t *testing.T) {
	images := read(t, films(6, 3), nil)
	sub := images.Subset([]int{4, 1, 4}).Subset([]int{1, 0})
	require.Equal(t, 2, sub.Len())
	require.Equal(t, []string{"film1", "film4"}, []string{sub.Name(0), sub.Name(1)})
	img, mask, err := sub.At(1)
	require.NoError(t, err)
	want, wantMask := film(4, 3)
	require.Equal(t, want, img)
	require.Equal(t, wantMask, mask)
	for class := range uint8(4) {
		n := 0
		for _, v := range wantMask {
			if v == class {
				n++
			}
		}
		require.Equal(t, n, sub.Pixels(1, class))
	}

	mean, std := sub.Statistics()
	for c := range 3 {
		var sum, squares, n float64
		for _, i := range []int{1, 4} {
			m, _ := film(i, 3)
			for p := range width * height {
				x := m.At(c*width*height + p)
				sum, squares, n = sum+x, squares+x*x, n+1
			}
		}
		require.InDelta(t, sum/n, mean[c], 1e-14)
		require.InDelta(t, math.Sqrt(squares/n-sum/n*sum/n), std[c], 1e-14)
	}
}

func TestStatistics16(t *testing.T) {
	img := &picture.Image{Width: 2, Height: 1, Channels: 1, Pix16: []uint16{65535, 0}}
	mean, std := read(t, []feed.Item{feed.Still("a", img, nil)}, nil).Statistics()
	require.Equal(t, []float64{0.5}, mean)
	require.Equal(t, []float64{0.5}, std)
}

// The digest of an image depends on its values, their bits, and its shape.
func TestDigest(t *testing.T) {
	digest := func(img *picture.Image) uint64 {
		return read(t, []feed.Item{feed.Still("a", img, nil)}, nil).Digest(0)
	}
	flat := func(w, h int, pix ...uint8) *picture.Image {
		return &picture.Image{Width: w, Height: h, Channels: 1, Pix8: pix}
	}
	deep := func(pix ...uint16) *picture.Image {
		return &picture.Image{Width: 2, Height: 1, Channels: 1, Pix16: pix}
	}
	// python3: hashlib.sha256(b"1 channels of 3x2, 8 bits\n" + bytes(range(1, 7))).hexdigest()[:16]
	require.EqualValues(t, uint64(0xd58d545f0ce14677), digest(flat(3, 2, 1, 2, 3, 4, 5, 6)))
	all := []uint64{digest(flat(3, 2, 1, 2, 3, 4, 5, 6)), digest(flat(2, 3, 1, 2, 3, 4, 5, 6)), digest(flat(3, 2, 1, 2, 3, 4, 5, 7)), digest(deep(1, 2)), digest(deep(1, 258))}
	for i, d := range all {
		require.NotContains(t, all[:i], d)
	}
}

// With a memory limit, as many of the first images as fit are kept, and the others
// are read again each time.
func TestMemory(t *testing.T) {
	for memory, want := range map[int64]int{0: 10, 1: 0, 104: 0, 105: 1, 419: 3, 420: 4, 1e9: 10} {
		require.Equal(t, want, read(t, films(10, 2), &feed.ReadOptions{Memory: memory}).Held(), "%d bytes", memory) // 2*35 + 35 an image
	}
	img := &picture.Image{Width: 5, Height: 1, Channels: 1, Pix16: make([]uint16, 5)}
	items := []feed.Item{feed.Still("a", img, nil), feed.Still("b", img, nil)}
	require.Equal(t, 1, read(t, items, &feed.ReadOptions{Memory: 19}).Held(), "a value of 16 bits is two bytes")
}

// Memory stays within the limit plus the prefetched batches and one image per
// worker, however large the set is.
func TestLiveMemory(t *testing.T) {
	const side, n, budget = 256, 96, 4 // images
	const bytes = 3*side*side*2 + side*side
	items := make([]feed.Item, n)
	for i := range items {
		items[i] = feed.Item{Name: fmt.Sprint(i), Load: func() (*picture.Image, []uint8, error) {
			return &picture.Image{Width: side, Height: side, Channels: 3, Pix16: make([]uint16, 3*side*side)}, make([]uint8, side*side), nil
		}}
	}
	live := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := live()
	images := read(t, items, &feed.ReadOptions{Memory: budget * bytes})
	require.Equal(t, budget, images.Held())
	require.Less(t, live()-before, int64((budget+1)*bytes), "after reading")

	const batch, ahead, workers = 2, 2, 2
	l := loader(t, images, feed.LoaderOptions{Batch: batch, Prefetch: ahead, Workers: workers, Shuffle: true, Augment: new(augment.Default())})
	const floats = 3*side*side*4 + side*side // an image of a batch
	bound := int64(budget*bytes + (ahead+1)*batch*floats + workers*(bytes+2*3*(side+2)*(side+2)*4) + 1<<20)
	most := int64(0)
	for b, err := range l.Epoch(0, 0) {
		require.NoError(t, err)
		require.Equal(t, batch, b.N)
		most = max(most, live()-before)
	}
	t.Logf("%d images of %d bytes: at most %.1f MiB live, bound %.1f, all would be %.1f", n, bytes, float64(most)/(1<<20), float64(bound)/(1<<20), float64(n*bytes)/(1<<20))
	require.Less(t, most, bound)
	runtime.KeepAlive(images)
}

// Images and masks of more than two classes come from the files of a data set, in
// colour.
func TestSamples(t *testing.T) {
	dir := t.TempDir()
	write := func(folder, name string, img image.Image) {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o755))
		f, err := os.Create(filepath.Join(dir, folder, name))
		require.NoError(t, err)
		require.NoError(t, png.Encode(f, img))
		require.NoError(t, f.Close())
	}
	colours := image.NewNRGBA(image.Rect(0, 0, 3, 2))
	for i := range 6 {
		colours.Set(i%3, i/3, color.NRGBA{uint8(10 * i), uint8(20 * i), uint8(30 * i), 255})
	}
	mask := image.NewGray(colours.Rect)
	copy(mask.Pix, []uint8{0, 2, 1, 0, 0, 2})
	write(data.TrainDir, "a.png", colours)
	write(data.MasksDir, "a.png", mask)
	task := data.Task{Classes: []string{"background", "lung", "heart"}, Channels: 3}
	ds, err := data.Open(dir, &data.Options{Multiple: 1, Task: task})
	require.NoError(t, err)
	images, err := feed.Read(context.Background(), feed.Samples(ds.Train, ds.Task), &feed.ReadOptions{Classes: 3})
	require.NoError(t, err)
	b := collect(t, loader(t, images, feed.LoaderOptions{}), 0, 0)[0]
	require.Equal(t, []uint8{0, 2, 1, 0, 0, 2}, b.Targets)
	require.Equal(t, []int{1, 3, 2, 3}, []int{b.N, b.C, b.H, b.W})
	for i := range 6 {
		require.Equal(t, []float32{float32(10*i) / 255, float32(20*i) / 255, float32(30*i) / 255}, []float32{b.Images[i], b.Images[6+i], b.Images[12+i]})
	}

	// If a file was removed, the error names it.
	images, err = feed.Read(context.Background(), feed.Samples(ds.Train, ds.Task), &feed.ReadOptions{Memory: 1})
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, data.TrainDir, "a.png")))
	for _, err := range loader(t, images, feed.LoaderOptions{}).Epoch(0, 0) {
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, "feed: a: ")
	}
}

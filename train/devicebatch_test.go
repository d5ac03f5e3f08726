package train

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// setOf returns a source of n random grey images and the same images on the device. Values
// are at least lowest.
func setOf(t testing.TB, n, h, w, bits, lowest int, opt feed.LoaderOptions) (*feed.Loader, *deviceSet) {
	t.Helper()
	r := rand.New(rand.NewPCG(31, uint64(n)))
	items := make([]feed.Item, n)
	for i := range items {
		img := &picture.Image{Width: w, Height: h, Channels: 1}
		mask := make([]uint8, h*w)
		for p := range mask {
			v := lowest + r.IntN(1<<bits-lowest)
			if bits == 16 {
				img.Pix16 = append(img.Pix16, uint16(v))
			} else {
				img.Pix8 = append(img.Pix8, uint8(v))
			}
			mask[p] = uint8(r.IntN(2))
		}
		items[i] = feed.Still(fmt.Sprint(i), img, mask)
	}
	images, err := feed.Read(context.Background(), items, nil)
	require.NoError(t, err)
	source, err := feed.NewLoader(images, opt)
	require.NoError(t, err)
	set, err := (&Learner{device: testdevice.Device, task: data.Binary("foreground")}).copySet(context.Background(), source, nil)
	require.NoError(t, err)
	return source, set
}

// Each batch that is made on the device is that of package augment: its masks exactly, its
// images to rounding, and images that are only copied, flipped and cropped exactly.
func TestDeviceBatches(t *testing.T) {
	strong := augment.Config{PFlip: 0.5, PAffine: 0.5, PLighting: 0.5, MaxWarp: 0.3, MaxRotate: 60, MaxZoom: 2, MaxBrightness: 0.4, MaxContrast: 0.4}
	border, zeros := strong, strong
	border.Padding, zeros.Padding = augment.Border, augment.Zeros
	zeros.PLighting = 0 // a sample beside a zero may be so near to 0 that lighting amplifies its rounding
	flips := augment.Config{PFlip: 0.5}
	lights := augment.Config{PFlip: 0.5, PLighting: 0.5, MaxBrightness: 0.4, MaxContrast: 0.4}
	// Images are rounded to float32 (6e-8), package augment interpolates in float32 (a few
	// times 1e-7), and lighting multiplies an error by up to its contrast, 1/0.6.
	const rounding = 6e-7
	for name, c := range map[string]struct {
		augment   *augment.Config
		size      int
		tolerance float64
	}{
		"as it is":    {nil, 0, 0},
		"flips":       {&flips, 0, 0},
		"crops":       {&flips, 40, 0},
		"larger":      {&flips, 55, rounding},
		"smaller":     {&flips, 27, rounding},
		"averaged":    {&flips, 13, rounding},
		"lights":      {&lights, 0, rounding},
		"reflection":  {&strong, 0, rounding},
		"border":      {&border, 40, rounding},
		"zeros":       {&zeros, 0, rounding},
		"all at once": {&strong, 12, rounding},
		"odd":         {&strong, 13, rounding},
	} {
		t.Run(name, func(t *testing.T) {
			for _, bits := range []int{8, 16} {
				lowest := 0
				if c.tolerance > 0 {
					lowest = 1 << (bits - 3) // lighting would amplify rounding near 0
				}
				source, set := setOf(t, 37, 40, 52, bits, lowest, feed.LoaderOptions{Batch: 8, Size: c.size, Shuffle: true, Augment: c.augment, Seed: 9})
				worst, ties := 0.0, 0
				for epoch := range 2 {
					var want []feed.Batch
					for b, err := range source.Epoch(epoch, 0) {
						require.NoError(t, err)
						want = append(want, feed.Batch{N: b.N, Images: append([]float32{}, b.Images...), Targets: append([]uint8{}, b.Targets...)})
					}
					number := 0
					for b, err := range source.Plans(epoch, 0) {
						require.NoError(t, err)
						require.NoError(t, set.check(b))
						nn.Scope(func() {
							images, masks := set.batch(b)
							require.Equal(t, []int64{int64(b.N), 1, int64(b.H), int64(b.W)}, nn.Shape(images))
							require.Equal(t, []int64{int64(b.N), int64(b.H), int64(b.W)}, nn.Shape(masks))
							got, err := nn.Slice[float32](images)
							require.NoError(t, err)
							gotMasks, err := nn.Slice[uint8](masks)
							require.NoError(t, err)
							for i, v := range want[number].Targets {
								if v != gotMasks[i] {
									require.True(t, halfway(&b.Plans[i/(b.H*b.W)], i%(b.H*b.W)), "pixel %d of the masks", i)
									ties++
								}
							}
							worst = max(worst, golden.Close(t, "images", got, want[number].Images, c.tolerance))
						})
						number++
					}
					require.Len(t, want, number)
				}
				t.Logf("%d bits: worst error %.2g", bits, worst)
				// Only if sides of even size are scaled to odd ones is there a pixel, the centre, that
				// a rotation leaves halfway between two.
				require.True(t, ties == 0 || name == "odd" && ties < 10, "%d pixels of masks differ", ties)
			}
		})
	}
}

// halfway returns whether a pixel of the result lies halfway between two pixels of the
// source, so that float64 rounding decides which of them is nearest.
func halfway(p *augment.Plan, pixel int) bool {
	at := func(i, n int) float64 { return float64(2*i-(n-1)) / float64(n-1) }
	x, y := p.Sampling().Map(at(pixel%p.W, p.W), at(pixel/p.W, p.H))
	tie := func(v float64, n int) bool {
		v = (v + 1) / 2 * float64(n-1)
		return math.Abs(v-math.Floor(v)-0.5) < 1e-12
	}
	return tie(x, p.SrcW) || tie(y, p.SrcH)
}

// Every value of 8 and of 16 bits is on the device what it is in a batch of the CPU.
func TestDeviceValues(t *testing.T) {
	for _, bits := range []int{8, 16} {
		img := &picture.Image{Width: 1 << (bits / 2), Height: 1 << (bits / 2), Channels: 1}
		for v := range 1 << bits {
			if bits == 16 {
				img.Pix16 = append(img.Pix16, uint16(v))
			} else {
				img.Pix8 = append(img.Pix8, uint8(v))
			}
		}
		images, err := feed.Read(context.Background(), []feed.Item{feed.Still("all", img, make([]uint8, 1<<bits))}, nil)
		require.NoError(t, err)
		source, err := feed.NewLoader(images, feed.LoaderOptions{})
		require.NoError(t, err)
		set, err := (&Learner{device: testdevice.Device, task: data.Binary("foreground")}).copySet(context.Background(), source, nil)
		require.NoError(t, err)
		want := make([]float32, 1<<bits)
		feed.Values(want, img)
		for b := range source.Plans(0, 0) {
			x, _ := set.batch(b)
			got, err := nn.Slice[float32](x)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	}
}

// BenchmarkBatch makes batches of 16 augmented images of 256x256 pixels: on the CPU by a
// loader that uses all cores, with the copy to the device, and on the device.
func BenchmarkBatch(b *testing.B) {
	source, set := setOf(b, 64, 256, 256, 8, 0, feed.LoaderOptions{Batch: 16, Shuffle: true, Augment: new(augment.Default())})
	l := &Learner{input: normalizer{device: testdevice.Device}}
	for name, planned := range map[string]bool{"cpu": false, "device": true} {
		b.Run(name, func(b *testing.B) {
			l.set = nil
			if planned {
				l.set = set
			}
			done := 0
			for epoch := 0; done < b.N; epoch++ {
				for batch, err := range l.batchesOf(source, epoch, 0) {
					require.NoError(b, err)
					nn.Scope(func() { l.uploaded(batch) })
					if done++; done == b.N {
						break
					}
				}
			}
			require.NoError(b, testdevice.Device.Synchronize())
		})
	}
}

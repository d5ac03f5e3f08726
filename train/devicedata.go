package train

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
	"golang.org/x/sync/errgroup"
)

// DeviceData says whether a learner made its training batches on the device, see
// Parts.DeviceData.
type DeviceData struct {
	Bytes  int64  // of the images and masks that were copied to the device; 0 if the batches are made on the CPU
	Reason string // why they are made on the CPU; "" if they are not
}

// DeviceData returns where the batches of the current or the last call of Fit or
// FindRate that had any were made. It may be called at any time. It is zero before the
// first call, and if the images could not be copied.
func (l *Learner) DeviceData() DeviceData {
	l.predictions.mutex.Lock()
	defer l.predictions.mutex.Unlock()
	return l.deviceData
}

// A deviceSet holds the images and masks of a source on the device, as bytes, and makes
// the batches of the source there.
type deviceSet struct {
	source feed.Planner
	device nn.Device
	images torch.Tensor // (N, C, h, w) uint8; of 16 bits int16, of which negative values stand for those above 32767
	masks  torch.Tensor // (N, 1, h, w) uint8
	values torch.Tensor // (256) or (65536) float64: the value, in [0, 1], of each byte or each 16 bits
}

// batchesOf returns the batches from, from+1 and so on of an epoch: planned ones if the
// images are on the device.
func (l *Learner) batchesOf(source feed.Source, epoch, from int) iter.Seq2[*feed.Batch, error] {
	if l.set != nil {
		return l.set.source.Plans(epoch, from)
	}
	return source.Epoch(epoch, from)
}

// withData runs f with the images of source on the device, if they are to be there, and
// frees them afterwards. hooks are asked whether to stop while the images are copied.
func (l *Learner) withData(ctx context.Context, source feed.Source, hooks []Hook, f func() error) (err error) {
	reason := l.cpuReason(source)
	l.setDeviceData(DeviceData{Reason: reason})
	if reason != "" {
		return f()
	}
	nn.Scope(func() {
		if l.set, err = l.copySet(ctx, source.(feed.Planner), hooks); err != nil {
			return
		}
		defer func() { l.set = nil }()
		l.setDeviceData(DeviceData{Bytes: l.set.source.Images().Bytes()})
		err = f()
	})
	return err
}

func (l *Learner) setDeviceData(d DeviceData) {
	l.predictions.mutex.Lock()
	defer l.predictions.mutex.Unlock()
	l.deviceData = d
}

// cpuReason returns why the batches of a source are made on the CPU; "" if they are not.
func (l *Learner) cpuReason(source feed.Source) string {
	limit := l.parts.DeviceData
	if limit == 0 {
		return "Parts.DeviceData is 0"
	}
	p, ok := source.(feed.Planner)
	if !ok {
		return fmt.Sprintf("the source, a %T, is no feed.Planner", source)
	}
	images := p.Images()
	if images.Len() == 0 {
		return "there are no images"
	}
	if !images.Masks {
		return "the images have no masks"
	}
	if need := images.Bytes(); need > limit {
		return fmt.Sprintf("the images and masks have %d bytes, and at most %d are allowed", need, limit)
	}
	return ""
}

// copySet copies the images and masks of a source to the device.
func (l *Learner) copySet(ctx context.Context, source feed.Planner, hooks []Hook) (*deviceSet, error) {
	const most = 16 << 20 // bytes copied at a time
	images := source.Images()
	n, c, h, w := int64(images.Len()), int64(images.Channels), int64(images.Height), int64(images.Width)
	s := &deviceSet{source: source, device: l.device}
	err := nn.Try(func() {
		dtype := nn.Byte
		if images.Bits == 16 {
			dtype = nn.Short
		}
		s.images, s.masks = nn.Zeros(l.device, dtype, n, c, h, w), nn.Zeros(l.device, nn.Byte, n, 1, h, w)
		s.values = valuesOf(l.device, images.Bits)
	})
	some := max(1, int(most/(images.Bytes()/n)))
	for from := 0; from < images.Len() && err == nil; from += some {
		if l.parts.Group == nil { // several processes stop together, at a batch
			if cause := context.Cause(ctx); cause != nil {
				return nil, &cancelled{fmt.Sprintf("copying the training images to %s, after %d", l.device, from), cause}
			}
			if err := call(hooks, func(h Hook) error { return event(h.Copying) }); err != nil && !errors.Is(err, EndPhase) {
				return nil, err
			}
		}
		err = l.copySome(s, from, min(some, images.Len()-from))
	}
	if native := (*nn.Error)(nil); errors.As(err, &native) {
		return nil, fmt.Errorf("train: copying %d training images, %d bytes with their masks, to %s; a lower Parts.DeviceData keeps them on the CPU: %w", n, images.Bytes(), l.device, err)
	}
	if err != nil {
		return nil, fmt.Errorf("train: copying the training images to %s: %w", l.device, err)
	}
	return s, nil
}

// valuesOf returns the values that a batch has for each byte or each 16 bits.
func valuesOf(d nn.Device, bits int) torch.Tensor {
	n := 1 << bits
	img := &picture.Image{Width: n, Height: 1, Channels: 1}
	for v := range n {
		if bits == 16 {
			img.Pix16 = append(img.Pix16, uint16(v))
		} else {
			img.Pix8 = append(img.Pix8, uint8(v))
		}
	}
	values := make([]float32, n)
	feed.Values(values, img)
	return nn.To(must(nn.FromSlice(d, values, int64(n))), d, nn.Double)
}

// copySome copies n images and masks from image from on.
func (l *Learner) copySome(s *deviceSet, from, n int) error {
	images := s.source.Images()
	area := images.Height * images.Width
	size := images.Channels * area
	var pix []uint8
	var deep []int16
	if images.Bits == 16 {
		deep = make([]int16, n*size)
	} else {
		pix = make([]uint8, n*size)
	}
	masks := make([]uint8, n*area)
	var g errgroup.Group // images that are not kept in memory are read from their files
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		g.Go(func() error {
			img, mask, err := images.At(from + i)
			if err != nil {
				return err
			}
			copy(masks[i*area:], mask)
			if deep == nil {
				copy(pix[i*size:], img.Pix8)
			}
			for j, v := range img.Pix16 {
				deep[i*size+j] = int16(v)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if at := l.badTarget(masks); at >= 0 {
		return fmt.Errorf("a target of class %d at pixel %d of %s; the task has classes 0 to %d", masks[at], at%area, images.Name(from+at/area), len(l.task.Classes)-1)
	}
	return nn.Try(func() {
		nn.Scope(func() {
			c, h, w := int64(images.Channels), int64(images.Height), int64(images.Width)
			var x torch.Tensor
			if deep != nil {
				x = must(nn.FromSlice(s.device, deep, int64(n), c, h, w))
			} else {
				x = must(nn.FromSlice(s.device, pix, int64(n), c, h, w))
			}
			nn.CopyInto(nn.Narrow(s.images, 0, int64(from), int64(n)), x)
			nn.CopyInto(nn.Narrow(s.masks, 0, int64(from), int64(n)), must(nn.FromSlice(s.device, masks, int64(n), 1, h, w)))
		})
	})
}

// check returns an error if a planned batch does not belong to the images of the set.
func (s *deviceSet) check(b *feed.Batch) error {
	if s == nil {
		return fmt.Errorf("a planned batch, but the images are not on the device; Epoch must yield pixels")
	}
	images := s.source.Images()
	if b.C != images.Channels {
		return fmt.Errorf("a planned batch of images of %d channels; the set has %d", b.C, images.Channels)
	}
	for i := range b.Plans {
		if at := b.Indices[i]; at < 0 || at >= images.Len() {
			return fmt.Errorf("a planned batch with image %d; the set has images 0 to %d", at, images.Len()-1)
		}
		if p := &b.Plans[i]; p.Padding < 0 || int(p.Padding) >= len(warpPaddings) {
			return fmt.Errorf("a plan with unknown padding %d", p.Padding)
		} else if p.SrcH != images.Height || p.SrcW != images.Width {
			return fmt.Errorf("a plan for an image of %dx%d; those of the set are %dx%d", p.SrcH, p.SrcW, images.Height, images.Width)
		}
	}
	return nil
}

var (
	opIndexSelect = nn.NewOp("index_select")
	opTake        = nn.NewOp("take")
)

// batch returns the images (N, C, H, W) in float32 and the masks (N, H, W) of a planned
// batch, as the source would yield them.
func (s *deviceSet) batch(b *feed.Batch) (images, masks torch.Tensor) {
	n, h, w := int64(b.N), int64(b.H), int64(b.W)
	indices, params := make([]int64, b.N), make([]nn.WarpParams, b.N)
	for i := range params {
		indices[i], params[i] = int64(b.Indices[i]), warpOf(&b.Plans[i])
	}
	nn.Scope(func() {
		at := must(nn.FromSlice(s.device, indices, n))
		warp := nn.NewWarp(s.device, params, h, w)
		pix := opIndexSelect.Call(s.images, 0, at)
		// take counts negative indices from the end, as the int16 of a high value needs it.
		images = warp.Images(opTake.Call(s.values, nn.To(pix, s.device, nn.Long)))
		masks = nn.Reshape(warp.Masks(opIndexSelect.Call(s.masks, 0, at)), n, h, w)
		nn.Keep(images, masks)
	})
	return images, masks
}

var warpPaddings = [...]nn.WarpPadding{
	augment.Reflection: nn.WarpReflection, augment.Border: nn.WarpBorder, augment.Zeros: nn.WarpZeros,
}

// warpOf returns a plan as package nn takes it.
func warpOf(p *augment.Plan) nn.WarpParams {
	q := nn.WarpParams{
		Sampling: p.Sampling(), Padding: warpPaddings[p.Padding], AreaH: int64(p.AreaH), AreaW: int64(p.AreaW),
		LogitShift: p.LogitShift, LogitScale: p.LogitScale,
	}
	if rows, cols, ok := p.Nearest(); ok {
		q.Rows, q.Cols, q.Copy = rows, cols, !p.Resample
	}
	return q
}

// badTarget returns the position of the first target whose class the task does not have,
// -1 if there is none.
func (l *Learner) badTarget(targets []uint8) int {
	classes := uint8(len(l.task.Classes))
	for i, v := range targets {
		if v >= classes && !(l.task.Ignore && v == data.Ignored) {
			return i
		}
	}
	return -1
}

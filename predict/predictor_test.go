package predict

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/metric"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// identity is a backend and engine of one output that returns the image itself as its
// probabilities.
type identity struct {
	hold    chan struct{} // unless nil, each call first receives from it
	busy    atomic.Int32
	batches []int
	out     []float32
	fail    func(images []float32, n int) error
	closed  int
}

func (e *identity) Open(*Artifact) (Engine, error) { return e, nil }

func (e *identity) Probabilities(images []float32, n int) ([]float32, error) {
	if e.busy.Add(1) != 1 {
		panic("two calls at a time")
	}
	defer e.busy.Add(-1)
	if e.hold != nil {
		<-e.hold
	}
	e.batches = append(e.batches, n)
	if e.fail != nil {
		if err := e.fail(images, n); err != nil {
			return nil, err
		}
	}
	e.out = append(e.out[:0], images...) // valid until the next call
	return e.out, nil
}

func (e *identity) Close() error { e.closed++; return nil }

// mirror returns an artifact for identity: one class with sigmoid, 8x8 pixels.
func mirror() *Artifact {
	a := small()
	a.Weights = nil
	a.Task.Output = data.Sigmoid
	return a
}

func open(t *testing.T, e *identity, opt *Options) *Predictor {
	p, err := New(mirror(), e, opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// spot returns a picture with a bright rectangle.
func spot(w, h int, r image.Rectangle, value uint8) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, w, h))
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			img.Pix[y*img.Stride+x] = value
		}
	}
	return img
}

func TestResult(t *testing.T) {
	p := open(t, &identity{}, nil)
	r, err := p.Image(t.Context(), spot(32, 16, image.Rect(8, 4, 20, 12), 204))
	require.NoError(t, err)
	f := r.Findings[0]
	require.True(t, r.Positive)
	require.Equal(t, Box{8, 4, 12, 8}, f.Box, "in pixels of the film, of which the image has 4x2 for one")
	require.Equal(t, 12*8, f.Pixels)
	require.Equal(t, f.Mask, r.Mask())
	require.Zero(t, f.Area, "nobody knows the size of a pixel")
	require.InDelta(t, 0.8, f.Highest, 1e-7)
	require.InDelta(t, 0.8, f.Mean, 1e-7)
	require.InDelta(t, 0.8*3*4, f.Sum, 1e-5)
	require.Equal(t, []string{Notice}, r.Notices)
	require.Equal(t, 1, r.Timings.Batch)

	r, err = p.Image(t.Context(), spot(5, 3, image.Rectangle{}, 0))
	require.NoError(t, err)
	require.False(t, r.Positive)
	require.Equal(t, Box{}, r.Findings[0].Box)
	b, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(b), `"width":5,"height":3,"positive":false,"findings":[{"class":"lung"`)
	require.Contains(t, string(b), `"notices":["research use, not for diagnosis"]`)
}

// New frees the weights that were read, so that they are not in memory twice.
func TestWeightsAreFreed(t *testing.T) {
	const size = 256 << 20
	held := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapSys - m.HeapReleased
	}
	debug.FreeOSMemory()
	before := held()
	a := mirror()
	a.Folds = 1
	a.Weights = []*checkpoint.File{{Tensors: []checkpoint.Tensor{{Name: "w", DType: checkpoint.U8, Shape: []int{size}, Data: make([]byte, size)}}}}
	require.Greater(t, held(), before+size/2)
	p, err := New(a, &identity{}, nil)
	require.NoError(t, err)
	require.Less(t, held(), before+size/2)
	require.NoError(t, p.Close())
}

// The same picture as a file, a reader, an image and a film gives the same mask.
func TestWays(t *testing.T) {
	p := open(t, &identity{}, nil)
	img := spot(24, 24, image.Rect(3, 6, 15, 21), 255)
	var file bytes.Buffer
	require.NoError(t, png.Encode(&file, img))
	path := filepath.Join(t.TempDir(), "film.png")
	require.NoError(t, os.WriteFile(path, file.Bytes(), 0o600))

	want, err := p.Image(t.Context(), img)
	require.NoError(t, err)
	require.Equal(t, Box{3, 6, 12, 15}, want.Findings[0].Box)
	byFile, err := p.File(t.Context(), path)
	require.NoError(t, err)
	byReader, err := p.Read(t.Context(), &file)
	require.NoError(t, err)
	byFilm, err := p.Film(t.Context(), &data.Film{
		Image:      &picture.Image{Width: 24, Height: 24, Channels: 1, Pix8: img.Pix},
		RowSpacing: 0.5, ColumnSpacing: 0.25, Spacing: dicom.ImagerSpacing,
	})
	require.NoError(t, err)
	byDICOM, err := p.DICOM(t.Context(), &dicom.Film{Rows: 24, Columns: 24, Bits: 8, Pix8: img.Pix, White: 255})
	require.NoError(t, err)
	for _, r := range []*Result{byFile, byReader, byFilm, byDICOM} {
		require.Equal(t, want.Prob, r.Prob)
		require.Equal(t, want.Mask(), r.Mask())
	}
	require.Equal(t, 12*15*0.5*0.25, byFilm.Findings[0].Area)
	require.Equal(t, []string{"the size of a pixel is that at the detector: areas at the patient are smaller"}, byFilm.Warnings)
}

func TestBadFilms(t *testing.T) {
	p := open(t, &identity{}, nil)
	_, err := p.File(t.Context(), "/nonexistent.png")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorAs(t, err, new(*FilmError))
	_, err = p.Read(t.Context(), bytes.NewReader([]byte("not a film")))
	require.Error(t, err)
	_, err = p.Image(t.Context(), image.NewGray(image.Rectangle{}))
	require.ErrorContains(t, err, "the image is empty")
	_, err = p.DICOM(t.Context(), &dicom.Film{Rows: 24, Columns: 24})
	require.ErrorContains(t, err, "24x24 pixels has 0 values; read it with its pixels")
	_, err = p.Film(t.Context(), nil)
	require.ErrorContains(t, err, "the film has no image")
	_, err = p.Film(t.Context(), &data.Film{Image: &picture.Image{Width: 2, Height: 2, Channels: 3, Pix8: make([]uint8, 12)}})
	require.ErrorContains(t, err, "a film of 3 channels")
	require.ErrorAs(t, err, new(*FilmError))
	require.Zero(t, p.coming.Load())
	require.Empty(t, p.places)

	p = open(t, &identity{}, &Options{MaxPixels: 24 * 24})
	for side, want := range map[int]string{24: "", 25: "image of 25x25 pixels; at most 576 are read"} {
		var file bytes.Buffer
		require.NoError(t, png.Encode(&file, image.NewGray(image.Rect(0, 0, side, side))))
		if _, err := p.Read(t.Context(), &file); want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
		var dcm bytes.Buffer
		require.NoError(t, dicom.Write(&dcm, &dicom.Film{Rows: side, Columns: side, Bits: 8, Pix8: make([]uint8, side*side), White: 255, StudyUID: "1.2", SeriesUID: "1.2.3", SOPInstanceUID: "1.2.3.4"}, dicom.ExplicitLittleEndian))
		if _, err := p.Read(t.Context(), &dcm); want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, dicom.ErrLimit)
		}
	}
}

func TestOptions(t *testing.T) {
	for want, opt := range map[string]Options{
		"there is no fold 0": {Folds: []int{0}},
		"batch -1":           {Batch: -1},
		"overlap of 1":       {Tiles: &Tiles{Overlap: 1}},
		"0 rules; wanted 1":  {Point: &OperatingPoint{}},
	} {
		_, err := New(mirror(), &identity{}, &opt)
		require.ErrorContains(t, err, want)
	}
	no := false
	p := open(t, &identity{}, &Options{Flip: &no, Point: &OperatingPoint{Rules: []metric.Rule{metric.ThresholdRule(0.9, 0)}}})
	require.False(t, p.Model().Inference.Flip)
	r, err := p.Image(t.Context(), spot(8, 8, image.Rect(0, 0, 4, 4), 204))
	require.NoError(t, err)
	require.False(t, r.Positive, "0.8 is not above the 0.9 of the options")
}

// Calls that come while the engine computes are computed together afterwards.
func TestBatches(t *testing.T) {
	e := &identity{hold: make(chan struct{})}
	p := open(t, e, &Options{Batch: 4, Wait: time.Hour})
	var all sync.WaitGroup
	start := func(n int) {
		for range n {
			all.Go(func() {
				i := uint8(100 + n)
				r, err := p.Image(t.Context(), spot(8, 8, image.Rect(0, 0, n%8, 3), i))
				assert.NoError(t, err)
				assert.Equal(t, float32(i)/255, r.Prob[0])
			})
		}
	}
	start(1)
	e.hold <- struct{}{} // the engine was called at once, because no other image was announced
	all.Wait()
	start(1)
	require.Eventually(t, func() bool { return e.busy.Load() == 1 }, 10*time.Second, time.Millisecond)
	start(6)
	require.Eventually(t, func() bool { return len(p.jobs) == 6 }, 10*time.Second, time.Millisecond)
	for range 3 {
		e.hold <- struct{}{}
	}
	all.Wait()
	require.Equal(t, []int{1, 1, 4, 2}, e.batches)
	require.Zero(t, p.coming.Load())
}

// single is an identity that recommends batches of one image.
type single struct{ *identity }

func (s single) Open(*Artifact) (Engine, error) { return s, nil }
func (single) Batch() int                       { return 1 }

func TestBatcher(t *testing.T) {
	for batch, want := range []int{1, 1, 2} {
		p, err := New(mirror(), single{&identity{}}, &Options{Batch: batch})
		require.NoError(t, err)
		require.Equal(t, want, p.opt.Batch)
		require.NoError(t, p.Close())
	}
}

// An image waits for announced images no longer than Options.Wait.
func TestWait(t *testing.T) {
	e := &identity{}
	p := open(t, e, &Options{Wait: 20 * time.Millisecond})
	p.coming.Add(1) // an announced image that never comes
	start := time.Now()
	_, err := p.Image(t.Context(), spot(8, 8, image.Rect(0, 0, 4, 4), 255))
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(start), 20*time.Millisecond)
	p.coming.Add(-1)
}

func TestCancel(t *testing.T) {
	e := &identity{hold: make(chan struct{})}
	p := open(t, e, &Options{Queue: 2})
	img := spot(8, 8, image.Rect(0, 0, 4, 4), 255)
	answers := make(chan error, 3)
	call := func(ctx context.Context) {
		_, err := p.Image(ctx, img)
		answers <- err
	}
	go call(t.Context())
	require.Eventually(t, func() bool { return e.busy.Load() == 1 }, 10*time.Second, time.Millisecond)

	reason := errors.New("the caller went away")
	queued, cancelQueued := context.WithCancelCause(t.Context())
	go call(queued) // waits for the engine
	require.Eventually(t, func() bool { return len(p.jobs) == 1 }, 10*time.Second, time.Millisecond)
	outside, cancelOutside := context.WithCancelCause(t.Context())
	go call(outside) // waits for a place
	cancelOutside(reason)
	require.ErrorIs(t, <-answers, reason)
	cancelQueued(reason)
	require.ErrorIs(t, <-answers, reason)

	e.hold <- struct{}{}
	require.NoError(t, <-answers)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Image(gone, img)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []int{1}, e.batches, "nobody computed for those who had gone")
}

func TestRefuse(t *testing.T) {
	e := &identity{hold: make(chan struct{})}
	p := open(t, e, &Options{Queue: 1, Refuse: true})
	img := spot(8, 8, image.Rect(0, 0, 4, 4), 255)
	done := make(chan error)
	go func() { _, err := p.Image(t.Context(), img); done <- err }()
	require.Eventually(t, func() bool { return e.busy.Load() == 1 }, 10*time.Second, time.Millisecond)
	_, err := p.Image(t.Context(), img)
	require.ErrorIs(t, err, ErrBusy)
	e.hold <- struct{}{}
	require.NoError(t, <-done)
}

func TestClose(t *testing.T) {
	e := &identity{hold: make(chan struct{}, 1)}
	p, err := New(mirror(), e, &Options{Queue: 2})
	require.NoError(t, err)
	img := spot(8, 8, image.Rect(0, 0, 4, 4), 255)
	answers := make(chan error)
	call := func() { _, err := p.Image(t.Context(), img); answers <- err }
	go call()
	require.Eventually(t, func() bool { return e.busy.Load() == 1 }, 10*time.Second, time.Millisecond)
	go call()
	require.Eventually(t, func() bool { return len(p.jobs) == 1 }, 10*time.Second, time.Millisecond)
	go call()
	closed := make(chan error)
	go func() { closed <- p.Close() }()
	require.ErrorIs(t, <-answers, ErrClosed, "the call without a place")
	e.hold <- struct{}{}
	ends := []error{<-answers, <-answers}
	require.Contains(t, ends, nil, "what was being computed")
	require.Contains(t, ends, ErrClosed)
	require.NoError(t, <-closed)
	require.NoError(t, p.Close())
	require.Equal(t, 1, e.closed)
	_, err = p.Image(t.Context(), img)
	require.ErrorIs(t, err, ErrClosed)
}

// If the engine refuses one film, the other films of its batch are predicted.
func TestFailure(t *testing.T) {
	refused := errors.New("too bright")
	e := &identity{hold: make(chan struct{}, 100)}
	e.fail = func(images []float32, n int) error {
		for _, v := range images {
			if v == 1 {
				return refused
			}
		}
		return nil
	}
	p := open(t, e, nil)
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			_, err := p.Image(t.Context(), spot(8, 8, image.Rect(0, 0, 4, 4), uint8(251+i)))
			if i == 4 {
				assert.ErrorIs(t, err, refused)
			} else {
				assert.NoError(t, err)
			}
		})
	}
	for range 10 {
		e.hold <- struct{}{}
	}
	all.Wait()
}

func TestNoProbability(t *testing.T) {
	p, err := New(mirror(), broken{}, nil)
	require.NoError(t, err)
	defer p.Close()
	_, err = p.Image(t.Context(), spot(8, 8, image.Rectangle{}, 0))
	require.ErrorContains(t, err, "the network gave NaN as probability 63")
}

// broken is an engine whose last probability is NaN.
type broken struct{}

func (broken) Open(*Artifact) (Engine, error) { return broken{}, nil }
func (broken) Close() error                   { return nil }
func (broken) Probabilities(images []float32, n int) ([]float32, error) {
	out := make([]float32, len(images))
	out[len(out)-1] /= out[0]
	return out, nil
}

// 10,000 further predictions leave no memory and no goroutines behind.
func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 predictions")
	}
	p := open(t, &identity{}, nil)
	img := spot(64, 64, image.Rect(8, 8, 40, 40), 255)
	many := func(n int) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range n / 8 {
					_, err := p.Image(context.Background(), img)
					assert.NoError(t, err)
				}
			})
		}
		all.Wait()
	}
	live := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	many(1000)
	before := live()
	goroutines := runtime.NumGoroutine()
	many(10000)
	after := live()
	t.Logf("%d KiB after 1,000, %d KiB after 11,000", before>>10, after>>10)
	require.Less(t, after, before+256<<10)
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
}

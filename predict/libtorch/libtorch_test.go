package libtorch

import (
	"context"
	"image"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/prepare"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/encoder"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/shim"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// few is an encoder of five convolutions.
type few struct{ nn.Sequential }

var kind = encoder.Kind{
	Name: "few", Widths: []int64{3, 4, 5, 6, 8}, Strides: []int64{2, 4, 8, 16, 32},
	Groups: 1, Group: func(string) int { return 0 },
}

func init() {
	kind.New = func(in *nn.Init, c int64) encoder.Encoder {
		var e few
		for _, w := range kind.Widths {
			e.Sequential = append(e.Sequential, nn.NewConv2d(in, c, w, 3, &nn.ConvOptions{Stride: 2, Padding: 1}))
			c = w
		}
		return e
	}
	encoder.Register(kind)
}

func (e few) Kind() encoder.Kind                   { return kind }
func (e few) InChannels() int64                    { return e.Sequential[0].(*nn.Conv2d).In }
func (e few) LoadWeights(f *checkpoint.File) error { return nn.LoadState(e, f) }
func (e few) Features(mode nn.Mode, x torch.Tensor) (maps []torch.Tensor) {
	for _, l := range e.Sequential {
		x = nn.ReLU(l.Forward(mode, x))
		maps = append(maps, x)
	}
	return maps
}

const size = 64

func network(t *testing.T, seed uint64) *unet.Net {
	net, err := unet.Build(nn.NewInit(nn.CPU, seed), 3, 2, unet.Config{Encoder: "few"})
	require.NoError(t, err)
	return net
}

// model returns an artifact of two folds with random weights, and its networks. With the
// images of films, its masks cover a part of each image.
func model(t *testing.T) (*predict.Artifact, []*unet.Net) {
	p := data.DefaultPreparation()
	p.Size, p.Fit = size, resize.Pad
	nets := []*unet.Net{network(t, 1), network(t, 2)}
	a, err := NewArtifact(predict.Model{
		Task: data.Binary("lung"), Preparation: p,
		Inference: predict.Inference{
			Input: predict.Input{Mean: data.Values{0.485, 0.456, 0.406}, Std: data.Values{0.229, 0.224, 0.225}},
			Flip:  true,
		},
		Point: predict.OperatingPoint{Rules: []metric.Rule{metric.ThresholdRule(0.25, 0)}},
	}, nets...)
	require.NoError(t, err)
	return a, nets
}

// films writes images of several sizes into a folder.
func films(t *testing.T) (dir string, names []string) {
	dir = t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	for i, s := range []image.Point{{150, 90}, {64, 64}, {70, 200}, {301, 299}} {
		img := image.NewGray(image.Rectangle{Max: s})
		for j := range img.Pix {
			img.Pix[j] = uint8(r.IntN(60) + 2*(j%s.X)%150)
		}
		name := string(rune('a'+i)) + ".png"
		f, err := os.Create(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, png.Encode(f, img))
		require.NoError(t, f.Close())
		names = append(names, name)
	}
	return dir, names
}

// A film gets exactly the same mask and probabilities from the code of training (a
// prepared folder, a loader with batches of one image, a learner for each fold, the mean)
// and from a Predictor that reads the film itself, alone or at the same time as others.
// If libtorch computes images together, only the last bits differ.
func TestSameAsTraining(t *testing.T) {
	a, nets := model(t)
	dir, names := films(t)
	want := byTraining(t, a, nets, dir, 1)
	require.Len(t, want, len(names))
	for i, w := range byTraining(t, a, nets, dir, 3) {
		require.InDeltaSlice(t, want[i].prob, w.prob, 1e-5)
	}

	path := filepath.Join(t.TempDir(), "model.safetensors")
	require.NoError(t, predict.WriteArtifact(path, a))
	p, err := predict.Open(path, Backend{}, nil)
	require.NoError(t, err)
	defer p.Close()
	same := func(i int) {
		r, err := p.File(context.Background(), filepath.Join(dir, names[i]))
		if assert.NoError(t, err) {
			assert.True(t, slices.Equal(want[i].prob, r.Prob), names[i])
			assert.True(t, slices.Equal(want[i].mask.Pix, r.Mask().Pix), names[i])
			assert.Greater(t, r.Findings[0].Pixels, 100)
			assert.Less(t, r.Findings[0].Pixels, r.Width*r.Height-100)
		}
	}
	for i := range names {
		same(i)
	}
	var all sync.WaitGroup
	for i := range 5 * len(names) {
		all.Go(func() { same(i % len(names)) })
	}
	all.Wait()
}

type answer struct {
	prob []float32
	mask *image.Gray
}

// byTraining predicts the images as a training run does: it prepares a folder, loads it in
// batches of together images, calls Learner.Predict for each fold, and takes the mean.
func byTraining(t *testing.T, a *predict.Artifact, nets []*unet.Net, dir string, together int) (answers []answer) {
	out := filepath.Join(t.TempDir(), "prepared")
	masks := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(masks, "runs.csv"), []byte("ImageId,EncodedPixels\na,-1\n"), 0o600))
	_, err := prepare.Run(t.Context(), prepare.Options{
		Images: []string{filepath.Join(dir, "a.png")}, RLE: filepath.Join(masks, "runs.csv"), Test: []string{dir},
		Task: a.Task, Preparation: a.Preparation, Out: out,
	})
	require.NoError(t, err)
	d, err := data.Open(out, &data.Options{Task: a.Task})
	require.NoError(t, err)
	defer d.Close()
	images, err := feed.Read(t.Context(), feed.Samples(d.Test, a.Task), nil)
	require.NoError(t, err)
	loader, err := feed.NewLoader(images, feed.LoaderOptions{Batch: together, Size: size})
	require.NoError(t, err)
	sums := make([]predict.Mean, images.Len())
	for _, net := range nets {
		input := a.Inference.Input
		l, err := train.New(net, a.Task, train.Default(), &train.Parts{Input: train.Input{Mean: input.Mean, Std: input.Std}})
		require.NoError(t, err)
		require.NoError(t, l.Predict(t.Context(), loader, train.FlipAverage, func(p *train.Prediction) error {
			sums[p.Index].Add(p.Prob)
			return nil
		}))
	}
	for i, s := range d.Test {
		g := s.Geometry
		g.Width, g.Height = size, size
		prob := sums[i].Take()
		film, err := a.Masks(prob, g)
		require.NoError(t, err)
		answers = append(answers, answer{prob, film[0]})
	}
	return answers
}

// Further predictions leave no tensors behind, and Close frees all tensors of the engine.
func TestMemory(t *testing.T) {
	a, nets := model(t)
	dir, names := films(t)
	before := settledHandles()
	p, err := predict.New(a, Backend{Threads: 1}, nil)
	require.NoError(t, err)
	some := func(n int) {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for i := range n / 4 {
					_, err := p.File(context.Background(), filepath.Join(dir, names[i%len(names)]))
					assert.NoError(t, err)
				}
			})
		}
		all.Wait()
	}
	some(20)
	opened := settledHandles()
	require.Greater(t, opened, before)
	some(80)
	require.LessOrEqual(t, settledHandles(), opened+1, "one may belong to the last call of settledHandles")
	require.NoError(t, p.Close())
	require.Eventually(t, func() bool { return settledHandles() <= before+1 }, 30*time.Second, time.Millisecond)
	runtime.KeepAlive(nets)
}

// settledHandles returns the number of tensor handles in use. A dropped handle is counted
// until Go's garbage collector has found it and a later call of libtorch has freed it, so
// settledHandles waits until the number no longer changes.
func settledHandles() int64 {
	n, same := int64(-1), 0
	for same < 8 { // longer than a dropped handle waits
		runtime.GC()
		time.Sleep(100 * time.Millisecond)
		nn.Scope(func() { nn.Zeros(nn.CPU, nn.Float, 1) })
		same++
		if now := shim.LiveHandles(); now != n {
			n, same = now, 0
		}
	}
	return n
}

func TestOpenErrors(t *testing.T) {
	for want, change := range map[string]func(a *predict.Artifact){
		`unknown field "colour"`: func(a *predict.Artifact) { a.Network = []byte(`{"encoder":"few","colour":1}`) },
		"vgg":                    func(a *predict.Artifact) { a.Network = []byte(`{"encoder":"vgg"}`) },
		"fold 1: ":               func(a *predict.Artifact) { a.Weights[1].Tensors = a.Weights[1].Tensors[1:] },
		"no weights":             func(a *predict.Artifact) { a.Weights = nil },
		"multiples of 32":        func(a *predict.Artifact) { a.Preparation.Size = 40 },
	} {
		a, _ := model(t)
		change(a)
		_, err := predict.New(a, Backend{}, nil)
		require.ErrorContains(t, err, want)
	}
	_, err := NewArtifact(predict.Model{}, network(t, 1), func() *unet.Net {
		net, err := unet.Build(nn.NewInit(nn.CPU, 1), 3, 2, unet.Config{Encoder: "few", NoLastCross: true})
		require.NoError(t, err)
		return net
	}())
	require.ErrorContains(t, err, "the networks of folds 0 and 1 differ")
}

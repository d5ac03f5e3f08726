package ensemble_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/encoder"
	"github.com/hcunet/hcunet/ensemble"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// tiny is a user-defined encoder, small enough to train in seconds: five convolutions, each
// of which halves the size.
type tiny struct{ nn.Sequential }

var tinyWidths = []int64{8, 8, 12, 12, 16}

func newTiny(in *nn.Init, channels int64) tiny {
	var e tiny
	for _, w := range tinyWidths {
		e.Sequential = append(e.Sequential, nn.NewConv2d(in, channels, w, 3, &nn.ConvOptions{Stride: 2, Padding: 1}))
		channels = w
	}
	return e
}

func init() {
	k := tinyKind()
	k.New = func(in *nn.Init, channels int64) encoder.Encoder { return newTiny(in, channels) }
	encoder.Register(k)
	k = greedy{}.Kind()
	k.New = func(in *nn.Init, channels int64) encoder.Encoder { return greedy{newTiny(in, channels)} }
	encoder.Register(k)
}

func tinyKind() encoder.Kind {
	return encoder.Kind{
		Name: "tiny", Widths: tinyWidths, Strides: []int64{2, 4, 8, 16, 32}, Groups: 2,
		Group: func(name string) int {
			if name[0] >= '3' {
				return 1
			}
			return 0
		},
		New: func(*nn.Init, int64) encoder.Encoder { return nil },
	}
}

func (e tiny) Kind() encoder.Kind                   { return tinyKind() }
func (e tiny) InChannels() int64                    { return e.Sequential[0].(*nn.Conv2d).In }
func (e tiny) LoadWeights(f *checkpoint.File) error { return nn.LoadState(e, f) }
func (e tiny) Features(mode nn.Mode, x torch.Tensor) (maps []torch.Tensor) {
	for i, conv := range e.Sequential {
		x = conv.Forward(mode, x)
		if i < len(e.Sequential)-1 {
			x = nn.ReLU(x)
		}
		maps = append(maps, x)
	}
	return maps
}

// greedy is a tiny that runs out of memory with more than two images.
type greedy struct{ tiny }

func (e greedy) Kind() encoder.Kind {
	k := tinyKind()
	k.Name = "greedy"
	return k
}

func (e greedy) Features(mode nn.Mode, x torch.Tensor) []torch.Tensor {
	if nn.Shape(x)[0] > 2 {
		nn.Zeros(nn.CPU, nn.Float, 1<<30, 1<<28)
	}
	return e.tiny.Features(mode, x)
}

const side = 32

// blobs writes n training films with one bright rectangle each, masks of the rectangles, and
// two test films, in the notebook's layout. With three classes the rectangles have class 1
// and 2 in turn, and the masks contain the numbers of the classes.
func blobs(t testing.TB, n, classes int) string {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	write := func(folder, name string, img *image.Gray) {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o755))
		var b bytes.Buffer
		require.NoError(t, png.Encode(&b, img))
		require.NoError(t, os.WriteFile(filepath.Join(dir, folder, name+".png"), b.Bytes(), 0o644))
	}
	draw := func(class int) (film, mask *image.Gray) {
		film, mask = image.NewGray(image.Rect(0, 0, side, side)), image.NewGray(image.Rect(0, 0, side, side))
		for i := range film.Pix {
			film.Pix[i] = uint8(60 + r.IntN(40))
		}
		value := uint8(255)
		if classes > 2 {
			value = uint8(class)
		}
		x0, y0 := 2+r.IntN(14), 2+r.IntN(14)
		for y := y0; y < y0+14; y++ {
			for x := x0; x < x0+10; x++ {
				film.Pix[film.PixOffset(x, y)] += uint8(60 * class)
				mask.Pix[mask.PixOffset(x, y)] = value
			}
		}
		return film, mask
	}
	for i := range n {
		film, mask := draw(1 + i%(classes-1))
		write("train", fmt.Sprintf("film%02d", i), film)
		write("masks", fmt.Sprintf("film%02d", i), mask)
	}
	for i := range 2 {
		film, _ := draw(1)
		write("test", fmt.Sprintf("test%d", i), film)
	}
	return dir
}

// small returns the description of a run that takes seconds.
func small(recipe ensemble.Recipe, dataDir string) ensemble.Config {
	c := recipe(side, 4, 1)
	c.Data = dataDir
	c.Network.Encoder = "tiny"
	c.Folds.Number = 2
	c.Inference.FilmSize = 64
	c.Phases = ensemble.NotebookPhases(2, 2, 1e-2, false)
	return c
}

func run(t testing.TB, c ensemble.Config, opt ensemble.Options) *ensemble.Result {
	t.Helper()
	result, err := ensemble.Run(context.Background(), c, opt)
	require.NoError(t, err)
	return result
}

// files returns the content, by name, of the files that must be the same in every run with
// the same description.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"config.json", "*.safetensors", "*.npy", "*.bin", "submission*.csv", "scores.json", "cases.csv", "items_*.txt"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, paths, pattern)
		for _, p := range paths {
			b, err := os.ReadFile(p)
			require.NoError(t, err)
			all[filepath.Base(p)] = string(b)
		}
	}
	return all
}

// requireSame compares two runs byte by byte.
func requireSame(t testing.TB, want, got map[string]string) {
	t.Helper()
	for name := range want {
		if want[name] != got[name] {
			t.Errorf("%s differs (%d and %d bytes)%s", name, len(want[name]), len(got[name]), difference(want[name], got[name]))
		}
	}
	require.Len(t, got, len(want))
}

// difference names the tensors in which two files of weights differ, and by how much, so
// that a rare failure says where it began. It returns "" for other files.
func difference(a, b string) (text string) {
	var files [2]*checkpoint.File
	for i, content := range []string{a, b} {
		f, err := checkpoint.ReadSafetensors(strings.NewReader(content))
		if err != nil {
			return ""
		}
		files[i] = f
	}
	for i, x := range files[0].Tensors {
		if i >= len(files[1].Tensors) || bytes.Equal(x.Data, files[1].Tensors[i].Data) {
			continue
		}
		v, errV := x.Float64s()
		w, errW := files[1].Tensors[i].Float64s()
		if errV != nil || errW != nil {
			text += "; " + x.Name
			continue
		}
		largest := 0.0
		for j := range min(len(v), len(w)) {
			largest = max(largest, math.Abs(v[j]-w[j]))
		}
		text += fmt.Sprintf("; %s by at most %.3g", x.Name, largest)
	}
	return text
}

package ensemble_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/ensemble"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/report"
	"github.com/stretchr/testify/require"
)

const side = 64

// blobs writes n training films with one bright blob each, which is the mask, and
// two test films, in the notebook's layout.
func blobs(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	write := func(folder, name string, img *image.Gray) {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o755))
		var b bytes.Buffer
		require.NoError(t, png.Encode(&b, img))
		require.NoError(t, os.WriteFile(filepath.Join(dir, folder, name+".png"), b.Bytes(), 0o644))
	}
	draw := func() (film, mask *image.Gray) {
		film, mask = image.NewGray(image.Rect(0, 0, side, side)), image.NewGray(image.Rect(0, 0, side, side))
		for i := range film.Pix {
			film.Pix[i] = uint8(60 + r.IntN(40))
		}
		x0, y0 := 4+r.IntN(28), 4+r.IntN(28)
		for y := y0; y < y0+28; y++ {
			for x := x0; x < x0+20; x++ {
				film.Pix[film.PixOffset(x, y)] += 120
				mask.Pix[mask.PixOffset(x, y)] = 255
			}
		}
		return film, mask
	}
	for i := range n {
		film, mask := draw()
		write("train", fmt.Sprintf("film%02d", i), film)
		write("masks", fmt.Sprintf("film%02d", i), mask)
	}
	for i := range 2 {
		film, _ := draw()
		write("test", fmt.Sprintf("test%d", i), film)
	}
	return dir
}

func small(dataDir, out string) ensemble.Config {
	c := ensemble.Notebook()
	c.Data, c.Out, c.Arch = dataDir, out, "resnet18"
	c.Size, c.Batch, c.Accumulate, c.Folds, c.FilmSize = side, 4, 1, 2, 128
	c.FrozenEpochs, c.FullEpochs = 4, 4
	return c
}

func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("trains two networks")
	}
	out := filepath.Join(t.TempDir(), "run")
	var log bytes.Buffer
	c := small(blobs(t, 16), out)
	c.Progress = report.NewProgress(&log)
	result, err := ensemble.Run(context.Background(), c)
	require.NoError(t, err)
	t.Log("\n" + log.String() + result.String())

	require.Len(t, result.Scores, 2)
	require.Greater(t, result.MeanScore(), 0.5, "a bright rectangle on a dark ground is easy")
	require.Equal(t, 16, result.OutOfFold.Positives)
	require.Zero(t, result.OutOfFold.AllEmpty())
	// The search over all folds finds what each fold found by itself.
	require.Equal(t, result.Threshold, result.Choices.PerFold.Rule.Top)
	for f, threshold := range result.Thresholds {
		require.Equal(t, threshold, result.Choices.PerFold.SameRules[f].Top)
	}
	require.InDelta(t, result.MeanScore(), result.Choices.PerFold.Same.Dice, 1e-12, "the folds are of one size")

	var names []string
	for f := range 2 {
		weights, err := checkpoint.OpenSafetensors(filepath.Join(out, fmt.Sprintf("fold%d.safetensors", f)))
		require.NoError(t, err)
		require.Equal(t, "layers.0.0.weight", weights.Tensors[0].Name)
		items, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("items_fold%d.txt", f)))
		require.NoError(t, err)
		names = append(names, strings.Fields(string(items))...)
		preds, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("preds_fold%d.npy", f)))
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(preds, []byte("\x93NUMPY\x01\x00")))
		require.Contains(t, string(preds[:128]), "'shape': (8, 64, 64)")
		require.Len(t, preds, 128+8*side*side)
		for _, plot := range []string{"loss", "rates", "samples"} {
			f, err := os.Open(filepath.Join(out, fmt.Sprintf("%s_fold%d.png", plot, f)))
			require.NoError(t, err)
			_, err = png.DecodeConfig(f)
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
	}
	require.ElementsMatch(t, names, func() (all []string) {
		for i := range 16 {
			all = append(all, fmt.Sprintf("film%02d", i))
		}
		return all
	}(), "every film is held out once")

	submission, err := maskcsv.Open(filepath.Join(out, "submission.csv"), &maskcsv.Options{Width: 128, Height: 128})
	require.NoError(t, err)
	require.Equal(t, []string{"test0", "test1"}, submission.IDs)
	mask, err := submission.Mask("test0", 128, 128)
	require.NoError(t, err)
	require.Positive(t, bytes.Count(mask.Pix, []byte{255}))

	f, err := os.Open(filepath.Join(out, "epochs.csv"))
	require.NoError(t, err)
	defer f.Close()
	epochs, err := report.ReadEpochs(f)
	require.NoError(t, err)
	require.Len(t, epochs, 16)
	require.Less(t, epochs[7].Value(metric.ValidLoss), epochs[0].Value(metric.ValidLoss))

	cases, err := os.ReadFile(filepath.Join(out, "cases.csv"))
	require.NoError(t, err)
	require.Equal(t, 17, bytes.Count(cases, []byte("\n")), "a header and a row per film")
	require.Contains(t, string(cases), "film07")
	page, err := os.ReadFile(filepath.Join(out, "report.html"))
	require.NoError(t, err)
	require.Contains(t, string(page), "thresholds chosen on the other folds")

	var how map[string]any
	b, err := os.ReadFile(filepath.Join(out, "config.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &how))
	require.EqualValues(t, 2019, how["seed"])
	require.NotEmpty(t, how["libtorch"])

	_, err = ensemble.Run(context.Background(), c)
	require.ErrorContains(t, err, "not empty")
}

func TestRunRefuses(t *testing.T) {
	empty := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(empty, "train"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(empty, "masks"), 0o755))
	unmatched := blobs(t, 3)
	require.NoError(t, os.Remove(filepath.Join(unmatched, "train", "film01.png")))
	noMask := blobs(t, 3)
	require.NoError(t, os.Remove(filepath.Join(noMask, "masks", "film02.png")))
	twoSizes := blobs(t, 3)
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, image.NewGray(image.Rect(0, 0, 96, 96))))
	require.NoError(t, os.WriteFile(filepath.Join(twoSizes, "train", "film01.png"), b.Bytes(), 0o644))

	for _, c := range []struct {
		name string
		dir  string
		set  func(*ensemble.Config)
		want []string
	}{
		{"missing folder", filepath.Join(empty, "nowhere"), nil, []string{"nowhere"}},
		{"empty train", empty, nil, []string{"train"}},
		{"mask without an image", unmatched, nil, []string{"film01"}},
		{"image without a mask", noMask, nil, []string{"film02"}},
		{"images of two sizes", twoSizes, nil, []string{"film01", "96"}},
		{"fewer images than folds", blobs(t, 3), func(c *ensemble.Config) { c.Folds = 4 }, []string{"3", "4", "fold"}},
		{"size", blobs(t, 3), func(c *ensemble.Config) { c.Size = 100 }, []string{"100", "32", "128"}},
		{"weights that are not there", blobs(t, 3), func(c *ensemble.Config) { c.Weights = "no.pth" }, []string{"no.pth"}},
		{"encoder", blobs(t, 3), func(c *ensemble.Config) { c.Arch = "vgg" }, []string{"vgg", "resnet34"}},
		{"half a statistic", blobs(t, 3), func(c *ensemble.Config) { c.Mean = 0.5 }, []string{"0.5"}},
		{"no epochs below zero", blobs(t, 3), func(c *ensemble.Config) { c.FullEpochs = -1 }, []string{"-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			cfg := small(c.dir, out)
			if c.set != nil {
				c.set(&cfg)
			}
			_, err := ensemble.Run(context.Background(), cfg)
			require.Error(t, err)
			t.Log(err)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), "\n")
			_, err = os.Stat(out)
			require.True(t, os.IsNotExist(err), "something was written")
		})
	}
}

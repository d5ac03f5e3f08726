package ensemble_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/ensemble"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

// A run writes all its files, with both recipes. Another run with its config.json gives the
// same bytes.
func TestRun(t *testing.T) {
	for name, recipe := range ensemble.Recipes {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			var log bytes.Buffer
			c := small(recipe, blobs(t, 16, 2))
			c.Phases = ensemble.NotebookPhases(3, 3, 1e-2, false)
			result := run(t, c, ensemble.Options{Out: out, Fold: -1, Progress: report.NewProgress(&log), Command: []string{"kfold", "-data", "x"}})
			t.Log("\n" + log.String() + result.String())
			require.Len(t, result.Classes, 1)
			class := result.Classes[0]
			require.Greater(t, class.OutOfFold.Dice, 0.4, "a bright rectangle on a dark ground is easy")
			require.Equal(t, 16, class.OutOfFold.Positives)
			require.Zero(t, class.OutOfFold.AllEmpty())
			require.Equal(t, class.Choices.PerFold.Rule, class.Rule)
			require.InDelta(t, class.Choices.PerFold.Same.Dice, class.InSample.Dice, 1e-9, "the page says one score of the same cases")

			var held []string
			for f := range 2 {
				weights, err := checkpoint.OpenSafetensors(filepath.Join(out, fmt.Sprintf("fold%d.safetensors", f)))
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(weights.Tensors[0].Name, "layers."))
				items, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("items_fold%d.txt", f)))
				require.NoError(t, err)
				held = append(held, strings.Fields(string(items))...)
				preds, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("preds_fold%d.npy", f)))
				require.NoError(t, err)
				require.True(t, bytes.HasPrefix(preds, []byte("\x93NUMPY\x01\x00")))
				require.Contains(t, string(preds[:128]), "'shape': (8, 32, 32)")
				require.Len(t, preds, 128+8*side*side)
				lines, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("epochs_fold%d.jsonl", f)))
				require.NoError(t, err)
				require.Equal(t, 6, bytes.Count(lines, []byte("\n")))
				file, err := os.Open(filepath.Join(out, fmt.Sprintf("epochs_fold%d.csv", f)))
				require.NoError(t, err)
				defer file.Close()
				epochs, err := report.ReadEpochs(file)
				require.NoError(t, err)
				require.Len(t, epochs, 6)
				require.Less(t, epochs[5].TrainLoss, epochs[0].TrainLoss)
			}
			require.ElementsMatch(t, held, func() (all []string) {
				for i := range 16 {
					all = append(all, fmt.Sprintf("film%02d", i))
				}
				return all
			}(), "every film is held out once")
			for _, picture := range []string{"loss_fold0", "rates_fold1", "dice", "calibration", "worst", "first_batch"} {
				f, err := os.Open(filepath.Join(out, picture+".png"))
				require.NoError(t, err)
				_, err = png.DecodeConfig(f)
				require.NoError(t, err)
				require.NoError(t, f.Close())
			}
			events, err := filepath.Glob(filepath.Join(out, "events", "fold1", "events.out.tfevents.*"))
			require.NoError(t, err)
			require.Len(t, events, 1)
			cases, err := os.ReadFile(filepath.Join(out, "cases.csv"))
			require.NoError(t, err)
			require.Equal(t, 17, bytes.Count(cases, []byte("\n")))

			submission, err := maskcsv.Open(filepath.Join(out, "submission.csv"), &maskcsv.Options{Width: 64, Height: 64})
			require.NoError(t, err)
			require.Equal(t, []string{"test0", "test1"}, submission.IDs)

			var facts []map[string]any
			b, err := os.ReadFile(filepath.Join(out, "run.json"))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(b, &facts))
			require.Equal(t, "kfold -data x", facts[0]["command"])
			require.NotEmpty(t, facts[0]["libtorch"])

			was, err := ensemble.OpenConfig(filepath.Join(out, "config.json"))
			require.NoError(t, err)
			require.Len(t, was.Input.Mean, 3, "the statistics are filled in")
			_, err = ensemble.Run(context.Background(), was, ensemble.Options{Out: out, Fold: -1})
			require.ErrorContains(t, err, "holds a run already; continue it with -resume")
			again := filepath.Join(t.TempDir(), "again")
			run(t, was, ensemble.Options{Out: again, Fold: -1, Memory: 1, Workers: 3})
			requireSame(t, files(t, out), files(t, again))

			other := was
			other.Seed++
			_, err = ensemble.Run(context.Background(), other, ensemble.Options{Out: out, Fold: -1, Resume: true})
			require.ErrorContains(t, err, "has another seed")
		})
	}
}

// With images that are only flipped, a run that makes its batches on the device gives the
// same bytes. It says where the images are.
func TestDeviceData(t *testing.T) {
	c := small(ensemble.Default, blobs(t, 8, 2))
	c.Augmentation = augment.Config{PFlip: 0.5}
	var want map[string]string
	for limit, says := range map[int64]string{ // four images of 32x32 with their masks have 8192 bytes
		0:    "",
		8191: "the training images stay on the CPU: the images and masks have 8192 bytes, and at most 8191 are allowed",
		8192: "0.0 MiB of training images and masks are on the device",
	} {
		var log bytes.Buffer
		out := filepath.Join(t.TempDir(), "run")
		run(t, c, ensemble.Options{Out: out, Fold: -1, DeviceData: limit, Progress: report.NewProgress(&log)})
		require.Contains(t, log.String(), says)
		require.Equal(t, limit > 0, strings.Contains(log.String(), "training images"))
		if want == nil {
			want = files(t, out)
		}
		requireSame(t, want, files(t, out))
	}
}

// The masks of the submission have the size of each film, without padding.
func TestSubmissionSizes(t *testing.T) {
	dir := blobs(t, 16, 2)
	csv := "name,split,patient,age,sex,view,width,height,fit,levels,mask_pixels,source\n" +
		"test0,test,,,,,100,50,pad,99,,\ntest1,test,,,,,48,96,stretch,99,,\n"
	for i := range 16 {
		csv += fmt.Sprintf("film%02d,train,,,,,32,32,stretch,99,,\n", i)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "films.csv"), []byte(csv), 0o644))
	c := small(ensemble.Default, dir)
	c.Inference.MinSum = 0
	c.Phases = ensemble.NotebookPhases(4, 4, 1e-2, false)
	out := filepath.Join(t.TempDir(), "run")
	rule := run(t, c, ensemble.Options{Out: out, Fold: -1}).Classes[0].Rule
	preds, err := os.ReadFile(filepath.Join(out, "preds_test.npy"))
	require.NoError(t, err)
	preds = preds[len(preds)-2*side*side:]
	submission, err := maskcsv.Open(filepath.Join(out, "submission.csv"), nil)
	require.NoError(t, err)
	for i, film := range []struct{ w, h, top, rows int }{{100, 50, 8, 16}, {48, 96, 0, 32}} { // rows of the 32x32 image that the film covers
		mask, err := submission.Mask(fmt.Sprintf("test%d", i), film.w, film.h)
		require.NoError(t, err)
		set, same := 0, 0
		for j, v := range mask.Pix {
			x, y := j%film.w*side/film.w, film.top+j/film.w*film.rows/film.h
			want := float64(preds[(i*side+y)*side+x])/255 > rule.Bottom
			if v != 0 {
				set++
			}
			if (v != 0) == want {
				same++
			}
		}
		require.NotZero(t, set)
		require.Less(t, set, film.w*film.h)
		require.Greater(t, same, film.w*film.h*9/10, "except at edges, the mask is that of the nearest pixel of the network's image")
	}
}

// Folds that are trained separately and then gathered give the same bytes as one run.
func TestFoldsApart(t *testing.T) {
	c := small(ensemble.Default, blobs(t, 10, 2))
	whole, apart := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "apart")
	run(t, c, ensemble.Options{Out: whole, Fold: -1})
	run(t, c, ensemble.Options{Out: apart, Fold: 1})
	_, err := ensemble.Run(context.Background(), c, ensemble.Options{Out: apart, Fold: -1, Gather: true})
	require.NoError(t, errorsContain(err, "fold 0 of 2 is not done; train it with -fold 0"))
	run(t, c, ensemble.Options{Out: apart, Fold: 0})
	run(t, c, ensemble.Options{Out: apart, Fold: -1, Gather: true})
	requireSame(t, files(t, whole), files(t, apart))

	// Imitate a run of an older program that did not know the field self_attention.
	now, then := files(t, whole)["config.json"], ""
	for line := range strings.Lines(now) {
		if !strings.Contains(line, `"self_attention": false,`) {
			then += line
		}
	}
	require.NotEqual(t, now, then)
	require.NoError(t, os.WriteFile(filepath.Join(apart, "config.json"), []byte(then), 0o666))
	for _, part := range []string{"fold0.json", "fold1.json"} {
		part = filepath.Join(apart, part)
		b, err := os.ReadFile(part)
		require.NoError(t, err)
		older := bytes.Replace(b, digest(now), digest(then), 1)
		require.NotEqual(t, b, older)
		require.NoError(t, os.WriteFile(part, older, 0o666))
	}
	run(t, c, ensemble.Options{Out: apart, Fold: -1, Gather: true})
	require.Equal(t, then, files(t, apart)["config.json"], "the description of the training does not change")
}

func digest(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return []byte(hex.EncodeToString(sum[:]))
}

// errorsContain returns an error unless the text of err contains want.
func errorsContain(err error, want string) error {
	if err == nil || !strings.Contains(err.Error(), want) {
		return fmt.Errorf("got %v, wanted %q", err, want)
	}
	return nil
}

// A cancelled run saves its state, and its error says how to continue. After it was
// continued, it ends with the same bytes.
func TestCancel(t *testing.T) {
	c := small(ensemble.Default, blobs(t, 10, 2))
	whole, broken := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "broken")
	run(t, c, ensemble.Options{Out: whole, Fold: -1})
	for _, at := range []string{"fold 0 of 2", "fold 0, held-out", "fold 1 of 2", "test images"} {
		ctx, cancel := context.WithCancel(context.Background())
		progress := report.NewProgress(writer(func(p []byte) {
			if strings.Contains(string(p), at) {
				cancel()
			}
		}))
		_, err := ensemble.Run(ctx, c, ensemble.Options{Out: broken, Fold: -1, Resume: at != "fold 0 of 2", Progress: progress})
		var stopped *ensemble.Interrupted
		require.ErrorAs(t, err, &stopped, at)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "-resume -out "+broken)
		if at == "fold 0, held-out" {
			require.FileExists(t, filepath.Join(broken, "state", "fold0", "state.safetensors"), "of the whole training")
		}
		cancel()
	}
	left := filepath.Join(broken, "state", "fold0", "state.safetensors"+train.Previous) // as by a run that was killed when fold 0 was done
	require.NoError(t, os.WriteFile(left, nil, 0o666))
	run(t, c, ensemble.Options{Out: broken, Fold: -1, Resume: true})
	requireSame(t, files(t, whole), files(t, broken))
	require.NoFileExists(t, left)
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// A second run in the same folder is refused while the first one is running.
func TestLocked(t *testing.T) {
	c := small(ensemble.Default, blobs(t, 6, 2))
	out := filepath.Join(t.TempDir(), "run")
	tried := false
	progress := report.NewProgress(writer(func(p []byte) {
		if !tried && strings.Contains(string(p), "fold 0 of 2") {
			tried = true
			_, err := ensemble.Run(context.Background(), c, ensemble.Options{Out: out, Fold: -1, Resume: true})
			require.ErrorContains(t, err, "another run is working in "+out)
			_, err = ensemble.Run(context.Background(), c, ensemble.Options{Out: out, Fold: 1})
			require.ErrorContains(t, err, "another run is working in "+out)
		}
	}))
	run(t, c, ensemble.Options{Out: out, Fold: -1, Progress: progress})
	require.True(t, tried)
}

// With several classes, each class has its own scores, rule and submission, both with
// softmax and with sigmoids.
func TestClasses(t *testing.T) {
	for _, output := range []data.Output{data.Softmax, data.Sigmoid} {
		out := filepath.Join(t.TempDir(), "run")
		c := small(ensemble.Default, blobs(t, 12, 3))
		c.Task = data.Task{Classes: []string{"background", "dim", "bright"}, Channels: 1, Output: output}
		c.Inference.FlipAverage = false
		result := run(t, c, ensemble.Options{Out: out, Fold: -1})
		require.Len(t, result.Classes, 2)
		require.Equal(t, "bright", result.Classes[1].Name)
		for _, class := range result.Classes {
			require.Equal(t, 6, class.OutOfFold.Positives)
			require.Equal(t, 6, class.OutOfFold.Negatives)
			_, err := os.Stat(filepath.Join(out, "submission_"+class.Name+".csv"))
			require.NoError(t, err)
		}
		preds, err := os.ReadFile(filepath.Join(out, "preds_test.npy"))
		require.NoError(t, err)
		require.Contains(t, string(preds[:128]), "'shape': (2, 2, 32, 32)")
		epochs, err := os.ReadFile(filepath.Join(out, "epochs_fold0.csv"))
		require.NoError(t, err)
		require.Contains(t, string(epochs), "dice/dim")
	}
}

// A description in JSON, as kfold -config reads it, chooses the losses, the optimizer, and
// the measurements after each epoch.
func TestLossesFromDescription(t *testing.T) {
	rest := `{"name": "dice", "weight": 0.5}, {"name": "jaccard"}, {"name": "tversky"}, {"name": "focal"}, {"name": "lovasz"}`
	for output, first := range map[data.Output]string{data.Softmax: "cross_entropy", data.Sigmoid: "bce"} {
		out := filepath.Join(t.TempDir(), "run")
		c := small(ensemble.Default, blobs(t, 12, 2))
		c.Task.Output = output
		require.NoError(t, json.Unmarshal([]byte(`[{"name": "`+first+`"}, `+rest+`]`), &c.Training.Loss))
		require.NoError(t, json.Unmarshal([]byte(`{"kind": "sgd", "nesterov": true}`), &c.Training.Optimizer))
		c.Validation.Curves, c.Validation.Distances = true, true
		text, err := c.JSON()
		require.NoError(t, err)
		c, err = ensemble.ReadConfig(text)
		require.NoError(t, err)
		run(t, c, ensemble.Options{Out: out, Fold: 0})
		epochs, err := os.ReadFile(filepath.Join(out, "epochs_fold0.csv"))
		require.NoError(t, err)
		for _, column := range []string{"dice", "iou", "average_precision", "best_dice", "hausdorff95", "surface_distance", "pixel_specificity", "case_sensitivity"} {
			require.Contains(t, string(epochs), ","+column+",")
		}
	}
}

// Start weights that were trained on held-out images are an error, whatever the names of
// the films, unless AllowLeak is set.
func TestLeak(t *testing.T) {
	dir := blobs(t, 8, 2)
	out := filepath.Join(t.TempDir(), "run")
	c := small(ensemble.Default, dir)
	run(t, c, ensemble.Options{Out: out, Fold: 0})
	c.Weights = filepath.Join(out, "fold0.safetensors")
	for _, folder := range []string{"train", "masks"} { // images are recognized under other names
		require.NoError(t, os.Rename(filepath.Join(dir, folder, "film03.png"), filepath.Join(dir, folder, "film0x.png")))
	}
	next := filepath.Join(t.TempDir(), "next")
	_, err := ensemble.Run(context.Background(), c, ensemble.Options{Out: next, Fold: -1})
	require.ErrorContains(t, err, "of the 4 images that fold")
	require.ErrorContains(t, err, "-allow-leak")
	require.NoDirExists(t, next)
	run(t, c, ensemble.Options{Out: next, Fold: 0, AllowLeak: true})

	// Weights also record the images on which their own start weights were trained.
	c.Data = blobs(t, 9, 2)
	c.Weights = filepath.Join(next, "fold0.safetensors")
	_, err = ensemble.Run(context.Background(), c, ensemble.Options{Out: filepath.Join(t.TempDir(), "x"), Fold: -1})
	require.ErrorContains(t, err, "-allow-leak")
}

// If there is not enough memory, the error names flags that may help. A run with them is
// possible in the same folder, unless something was already trained there.
func TestOutOfMemory(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	c := small(ensemble.Default, blobs(t, 8, 2))
	c.Network.Encoder = "greedy"
	_, err := ensemble.Run(context.Background(), c, ensemble.Options{Out: out, Fold: -1})
	var full *train.MemoryError
	require.ErrorAs(t, err, &full)
	require.Equal(t, 4, full.Images)
	require.Regexp(t, `^fold 0: .* no memory for a batch of 4 images of 32x32; .*; try -batch 2 -accumulate 2$`, err.Error())
	_, err = ensemble.FindRate(context.Background(), c, ensemble.Options{Out: t.TempDir()})
	require.ErrorContains(t, err, "; try -batch 2 -accumulate 2")

	c.Batch, c.Training.MicroBatches = 2, 2
	run(t, c, ensemble.Options{Out: out, Fold: 0})
	c.Batch = 4
	_, err = ensemble.Run(context.Background(), c, ensemble.Options{Out: out, Fold: 1})
	require.ErrorContains(t, err, "the run in "+out+" has another batch")
}

// A search for a learning rate suggests rates and writes a plot.
func TestFindRate(t *testing.T) {
	out := t.TempDir()
	rates, err := ensemble.FindRate(context.Background(), small(ensemble.Default, blobs(t, 8, 2)), ensemble.Options{Out: out})
	require.NoError(t, err)
	require.Positive(t, rates.Steepest)
	require.Positive(t, rates.Valley)
	require.FileExists(t, rates.Plot)
	require.Contains(t, rates.String(), rates.Plot)
}

func TestRunRefuses(t *testing.T) {
	empty := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(empty, "train"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(empty, "masks"), 0o755))
	unmatched := blobs(t, 3, 2)
	require.NoError(t, os.Remove(filepath.Join(unmatched, "train", "film01.png")))
	noMask := blobs(t, 3, 2)
	require.NoError(t, os.Remove(filepath.Join(noMask, "masks", "film02.png")))
	twoSizes := blobs(t, 3, 2)
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, image.NewGray(image.Rect(0, 0, 96, 96))))
	require.NoError(t, os.WriteFile(filepath.Join(twoSizes, "train", "film01.png"), b.Bytes(), 0o644))
	good := blobs(t, 4, 2)
	occupied := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(occupied, "thesis.txt"), nil, 0o644))

	for _, c := range []struct {
		name string
		dir  string
		set  func(*ensemble.Config, *ensemble.Options)
		want []string
	}{
		{"missing folder", filepath.Join(empty, "nowhere"), nil, []string{"nowhere"}},
		{"empty train", empty, nil, []string{"train"}},
		{"mask without an image", unmatched, nil, []string{"film01"}},
		{"image without a mask", noMask, nil, []string{"film02"}},
		{"images of two sizes", twoSizes, nil, []string{"film01", "96"}},
		{"fewer images than folds", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Folds.Number = 5 }, []string{"4", "5", "fold"}},
		{"size", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Size = 100 }, []string{"100", "32", "128"}},
		{"weights that are not there", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Weights = "no.pth" }, []string{"no.pth"}},
		{"weights of another encoder", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Weights = "resnet34" }, []string{"resnet34", "tiny"}},
		{"encoder", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Network.Encoder = "vgg" }, []string{"vgg", "resnet34"}},
		{"half a statistic", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Input.Mean = []float64{0.5} }, []string{"1 means", "0 standard"}},
		{"statistics of bytes", good, func(c *ensemble.Config, _ *ensemble.Options) {
			c.Input.Mean, c.Input.Std = []float64{175, 175, 175}, []float64{70, 70, 70}
		}, []string{"175", "[0, 1]", "255"}},
		{"no epochs", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Phases = nil }, []string{"no phase", "untrained"}},
		{"rate", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Phases[0].Rates[1] = -1 }, []string{"-1", "group 1"}},
		{"rates", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Phases[0].Rates = []float64{1} }, []string{"1 learning rates for 3"}},
		{"mirrors", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Task.NoMirror = true }, []string{"mirroring changes the classes", "flip_average", "-no-mirror"}},
		{"clip", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Training.Clip = -1 }, []string{"-1"}},
		{"noise", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Inference.MinSum = -3 }, []string{"-3"}},
		{"augmentation", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Augmentation.MaxWarp = 7 }, []string{"MaxWarp", "7"}},
		{"patients", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Folds.Split = ensemble.ByPatient }, []string{"patients", "-split patient"}},
		{"seed in two places", good, func(c *ensemble.Config, _ *ensemble.Options) { c.Training.Seed = 3 }, []string{"training.seed"}},
		{"a batch larger than the set", good, func(c *ensemble.Config, _ *ensemble.Options) { *c = small(ensemble.Kernel, c.Data) }, []string{"fold 0", "4 images", "has 2"}},
		{"fold", good, func(_ *ensemble.Config, o *ensemble.Options) { o.Fold = 2 }, []string{"fold 2 of 2"}},
		{"device data", good, func(_ *ensemble.Config, o *ensemble.Options) { o.DeviceData = -1 }, []string{"-1 bytes on the device"}},
		{"nothing to resume", good, func(_ *ensemble.Config, o *ensemble.Options) { o.Resume = true }, []string{"no run to continue"}},
		{"nothing to gather", good, func(_ *ensemble.Config, o *ensemble.Options) { o.Gather = true }, []string{"no folds to gather"}},
		{"a folder with something else", good, func(_ *ensemble.Config, o *ensemble.Options) { o.Out = occupied }, []string{"thesis.txt"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := ensemble.Options{Out: filepath.Join(t.TempDir(), "run"), Fold: -1, Device: nn.CPU}
			cfg := small(ensemble.Default, c.dir)
			if c.set != nil {
				c.set(&cfg, &opt)
			}
			_, err := ensemble.Run(context.Background(), cfg, opt)
			require.Error(t, err)
			t.Log(err)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), "\n")
			if opt.Out != occupied {
				require.NoDirExists(t, opt.Out, "something was written")
			}
		})
	}
}

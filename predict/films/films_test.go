package films

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/data/phantom"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/rle"
	"github.com/stretchr/testify/require"
)

// identity is a backend and engine that returns the image itself as its probabilities.
type identity struct{}

func (identity) Open(*predict.Artifact) (predict.Engine, error)           { return identity{}, nil }
func (identity) Probabilities(images []float32, n int) ([]float32, error) { return images, nil }
func (identity) Close() error                                             { return nil }

func predictor(t *testing.T, phantoms bool) *predict.Predictor {
	task := data.Binary("lung")
	task.Output = data.Sigmoid
	p := data.DefaultPreparation()
	p.Size, p.CLAHE = 16, false
	made, err := predict.New(&predict.Artifact{Model: predict.Model{
		Name: "bright", Task: task, Preparation: p, Network: []byte(`{}`), Folds: 1,
		Point:    predict.OperatingPoint{Rules: []metric.Rule{metric.ThresholdRule(0.5, 0)}},
		Training: predict.Training{Phantoms: phantoms},
	}}, identity{}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, made.Close()) })
	return made
}

// draw writes a black image with a white rectangle.
func draw(t *testing.T, path string, w, h int, r image.Rectangle) {
	img := image.NewGray(image.Rect(0, 0, w, h))
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			img.Pix[y*w+x] = 255
		}
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, png.Encode(f, img))
	require.NoError(t, f.Close())
}

func rows(t *testing.T, path string) [][]string {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	return all
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	draw(t, filepath.Join(dir, "b.png"), 2, 2, image.Rectangle{})
	draw(t, filepath.Join(dir, "deep", "er", "a.png"), 2, 2, image.Rectangle{})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("no film"), 0o600))
	both := []string{filepath.Join(dir, "b.png"), filepath.Join(dir, "deep", "er", "a.png")}
	for _, args := range [][]string{{dir}, {filepath.Join(dir, "deep"), filepath.Join(dir, "*.png")}, {both[1], both[0], dir}} {
		found, err := Find(args)
		require.NoError(t, err)
		require.Equal(t, both, found)
	}
	for arg, want := range map[string]string{
		filepath.Join(dir, "none*"): "nothing matches it",
		filepath.Join(dir, "["):     "syntax error in pattern",
		"-seg":                      "flags come before films",
		t.TempDir():                 "there is no DICOM, PNG or JPEG file in",
	} {
		_, err := Find([]string{arg})
		require.ErrorContains(t, err, want)
	}
}

func TestRun(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "found")
	draw(t, filepath.Join(dir, "c.png"), 64, 32, image.Rect(8, 4, 20, 12))
	draw(t, filepath.Join(dir, "a.png"), 16, 16, image.Rectangle{})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b.png"), []byte("broken"), 0o600))
	paths, err := Find([]string{dir})
	require.NoError(t, err)

	_, err = Run(t.Context(), predictor(t, false), paths, Options{Out: out})
	require.ErrorContains(t, err, filepath.Join(dir, "b.png"))

	var order []string
	sum, err := Run(t.Context(), predictor(t, false), paths, Options{
		Out: out, KeepGoing: true, Done: func(f *Film) { order = append(order, f.Name) },
	})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c"}, order)
	require.Equal(t, 3, sum.Films)
	require.Equal(t, 1, sum.Positive)
	require.Len(t, sum.Failed, 1)
	require.Equal(t, "b", sum.Failed[0].Name)
	require.Equal(t, "b", rows(t, filepath.Join(out, "failed.csv"))[1][0])

	mask, err := picture.OpenGray(filepath.Join(out, "masks", "c.png"), nil)
	require.NoError(t, err)
	film, err := picture.OpenGray(filepath.Join(dir, "c.png"), nil)
	require.NoError(t, err)
	require.Equal(t, film.Pix, mask.Pix, "4x2 pixels of the film are one of the network's, and the rectangle lies on whole ones")
	overlay, err := os.Open(filepath.Join(out, "overlays", "c.png"))
	require.NoError(t, err)
	defer overlay.Close()
	drawn, err := png.Decode(overlay)
	require.NoError(t, err)
	require.Equal(t, film.Rect, drawn.Bounds())
	r, _, _, _ := drawn.At(8, 4).RGBA()
	_, _, blue, _ := drawn.At(8, 4).RGBA()
	require.NotEqual(t, r, blue, "the outline is coloured")

	var text struct {
		Name   string
		Result struct {
			Positive bool
			Findings []predict.Finding
			Notices  []string
		}
	}
	b, err := os.ReadFile(filepath.Join(out, "findings", "c.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &text))
	require.True(t, text.Result.Positive)
	require.Equal(t, predict.Box{X: 8, Y: 4, Width: 12, Height: 8}, text.Result.Findings[0].Box)
	require.Equal(t, []string{predict.Notice}, text.Result.Notices)

	table := rows(t, filepath.Join(out, "findings.csv"))
	require.Len(t, table, 3)
	require.Equal(t, []string{"a", "c"}, []string{table[1][0], table[2][0]})
	require.Equal(t, []string{"lung", "true", "96", "", "8", "4", "12", "8"}, table[2][2:10])
	submitted, err := maskcsv.Open(filepath.Join(out, "submission.csv"), nil)
	require.NoError(t, err)
	require.NotNil(t, submitted)
	require.Equal(t, [][]string{{"ImageId", "EncodedPixels"}, {"a", "-1"}, {"c", rle.Encode(mask, nil)}}, rows(t, filepath.Join(out, "submission.csv")))
}

// If the model was trained on phantoms, every file except submission.csv says so, also the
// DICOM objects.
func TestPhantoms(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	_, err := phantom.Write(t.Context(), dir, &phantom.Options{Train: 2})
	require.NoError(t, err)
	paths, err := Find([]string{filepath.Join(dir, phantom.TrainDir)})
	require.NoError(t, err)
	made := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	_, err = Run(t.Context(), predictor(t, true), paths, Options{Out: out, Segmentation: true, Capture: true, Time: made})
	require.NoError(t, err)
	said := 0
	require.NoError(t, filepath.WalkDir(out, func(path string, d os.DirEntry, err error) error {
		if d.IsDir() || filepath.Base(path) == "submission.csv" {
			return err
		}
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, strings.ToLower(string(b)), predict.PhantomNotice, path)
		said++
		return nil
	}))
	require.Equal(t, 2*5+2, said, "mask, overlay, findings, two objects; findings.csv and model.txt")
	name := strings.TrimSuffix(filepath.Base(paths[0]), ".dcm")
	film, err := dicom.Open(paths[0], nil)
	require.NoError(t, err)
	capture, err := dicom.Open(filepath.Join(out, "dicom", name+".sc.dcm"), nil)
	require.NoError(t, err)
	require.Equal(t, film.StudyUID, capture.StudyUID)
	require.Equal(t, film.Rows, capture.Rows)
}

func TestRunErrors(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.png")
	draw(t, a, 16, 16, image.Rectangle{})
	p := predictor(t, false)
	for want, c := range map[string]struct {
		paths []string
		opt   Options
	}{
		"no film to predict": {nil, Options{Out: dir}},
		"have one name":      {[]string{a, filepath.Join(dir, "x", "a.jpg")}, Options{Out: dir}},
		"no folder to write": {[]string{a}, Options{}},
		"need a time":        {[]string{a}, Options{Out: dir, Segmentation: true}},
		"-1 workers":         {[]string{a}, Options{Out: dir, Workers: -1}},
		"may have 1 to 200":  {[]string{filepath.Join(dir, ".png")}, Options{Out: dir}},
		"not a directory":    {[]string{a}, Options{Out: filepath.Join(a, "x")}},
	} {
		_, err := Run(t.Context(), p, c.paths, c.opt)
		require.ErrorContains(t, err, want, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Run(ctx, p, []string{a}, Options{Out: filepath.Join(dir, "out"), KeepGoing: true})
	require.ErrorIs(t, err, context.Canceled)
}

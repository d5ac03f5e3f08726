package data

import (
	"fmt"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/data/folds"
	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/stretchr/testify/require"
)

// The folder holds one case of everything that Check looks for.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	add := func(name string, img, mask *image.Gray) {
		sketch.WritePNG(t, img, dir, TrainDir, name+".png")
		sketch.WritePNG(t, mask, dir, MasksDir, name+".png")
	}
	const w, h = 96, 64
	mask := func(box image.Rectangle) *image.Gray { return sketch.Box(w, h, box) }
	none := mask(image.Rectangle{})
	add("a", sketch.Plain(w, h, 1), mask(image.Rect(10, 10, 30, 20)))
	add("a-again", sketch.Plain(w, h, 1), none)
	add("b", sketch.Plain(w, h, 2), none)
	add("b-again", sketch.Plain(w, h, 2), none)
	add("c", sketch.Plain(w, h, 3), none)
	flat := image.NewGray(image.Rect(0, 0, w, h))
	for i := range flat.Pix {
		flat.Pix[i] = uint8(100 + i%2)
	}
	add("constant", flat, none)
	padded := sketch.Plain(w, h, 4)
	for y := range h {
		clear(padded.Pix[y*w : y*w+w/2])
	}
	add("outside", padded, mask(image.Rect(20, 10, 60, 50)))
	add("huge", sketch.Plain(w, h, 5), mask(image.Rect(0, 0, w, h-10)))
	add("tiny", sketch.Plain(w, h, 6), mask(image.Rect(50, 50, 51, 51)))
	grey := mask(image.Rectangle{})
	grey.Pix[77] = 191
	add("grey", sketch.Plain(w, h, 7), grey)
	sketch.WritePNG(t, sketch.Plain(w, h, 3), dir, TestDir, "c-too.png")
	sketch.WritePNG(t, sketch.Plain(w, h, 8), dir, TestDir, "t.png")
	films := "split,name,patient,levels\ntrain,a,Ada,\ntrain,b,Bo,31\ntrain,grey,Bo,200\ntest,t,Ada,32\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, FilmsFile), []byte(films), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, StatisticsFile), []byte(`{"mean":0.1,"std":0.2}`), 0o666))

	d, err := Open(dir, &Options{Task: Task{Masks: WhiteOnly}})
	require.NoError(t, err)
	folds, err := folds.KFold(10, 4, folds.KernelSeed)
	require.NoError(t, err)
	together := false // whether b and grey, items 2 and 7, are in one fold
	for _, f := range folds {
		n := 0
		for _, i := range f {
			if d.Train[i].Name == "b" || d.Train[i].Name == "grey" {
				n++
			}
		}
		together = together || n == 2
	}
	require.False(t, together, "choose other names")

	r, err := Check(d, nil)
	require.NoError(t, err)
	var got []string
	for _, f := range r.Findings {
		got = append(got, fmt.Sprintf("%s: %s", f.Kind, f.File))
	}
	require.Equal(t, []string{
		"patient in train and test: test/t.png",
		"same picture, different masks: train/a-again.png",
		"same picture in train and test: test/c-too.png",
		"same picture twice: train/b-again.png",
		"patient in two folds: train/b.png",
		"image nearly constant: train/constant.png",
		"mask outside the film: masks/outside.png",
		"mask huge: masks/huge.png",
		"mask tiny: masks/tiny.png",
		"mask without white: masks/grey.png",
		"few grey levels: train/b.png",
		"few grey levels: train/constant.png",
		"statistics differ: statistics.json",
	}, got)
	require.Equal(t, []int{10, 2, 4}, []int{r.Train, r.Test, r.Positive})
	require.Equal(t, []int{1, 200, 1600, w * (h - 10)}, r.Areas)
	require.Equal(t, []int{2, 1}, []int{r.Patients, r.PatientsOfTwo})

	var b strings.Builder
	_, err = r.WriteTo(&b)
	require.NoError(t, err)
	for _, line := range []string{
		"images      10 training, 2 test, all 96x64",
		"positive    4 of 10 (40.0 %); predicting nothing at all scores Dice 0.600",
		"mask area   0.02 / 3.26 / 26.04 / 26.04 / 84.38 %",
		"    masks/outside.png  68 % of it lies where the image is flat",
	} {
		require.Contains(t, b.String(), line)
	}
}

func TestCheckSound(t *testing.T) {
	d, err := Open(smallDataset(t), nil)
	require.NoError(t, err)
	r, err := Check(d, &CheckOptions{Folds: 2})
	require.NoError(t, err)
	require.Len(t, r.Findings, 1)
	require.Equal(t, NoPatients, r.Findings[0].Kind)
	// Mean and deviation by the definition, from the bytes.
	var sum, sumSq, n float64
	for _, s := range d.Train {
		img, _, err := s.Load(d.Task)
		require.NoError(t, err)
		for _, v := range img.Pix8 {
			x := float64(v) / 255
			sum, sumSq, n = sum+x, sumSq+x*x, n+1
		}
	}
	require.InDelta(t, sum/n, r.Mean[0], 1e-12)
	require.InDelta(t, sumSq/n-sum/n*sum/n, r.Std[0]*r.Std[0], 1e-12)
}

// A file that changed since Open is an error, not a panic.
func TestCheckChanged(t *testing.T) {
	dir := smallDataset(t)
	d, err := Open(dir, nil)
	require.NoError(t, err)
	sketch.WritePNG(t, sketch.Plain(8, 8, 1), dir, MasksDir, "b.png")
	_, err = Check(d, nil)
	require.ErrorContains(t, err, "b.png")
	_, _, err = d.Train[1].Load(d.Task)
	require.ErrorContains(t, err, "b.png is 8x8")
	require.NoError(t, os.Remove(filepath.Join(dir, TrainDir, "a.png")))
	_, err = Check(d, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

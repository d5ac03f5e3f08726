package data

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/stretchr/testify/require"
)

// smallDataset makes a valid folder of 64x32 pixels: train a, b, b2 with masks,
// test t.
func smallDataset(t testing.TB) string {
	dir := t.TempDir()
	for i, n := range []string{"a", "b", "b2"} {
		sketch.WritePNG(t, sketch.Plain(64, 32, i), dir, TrainDir, n+".png")
		sketch.WritePNG(t, sketch.Box(64, 32, image.Rect(3, 5, 3+4*i, 9)), dir, MasksDir, n+".png")
	}
	sketch.WritePNG(t, sketch.Plain(64, 32, 9), dir, TestDir, "t.png")
	return dir
}

func TestOpen(t *testing.T) {
	dir := smallDataset(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, TrainDir, "Thumbs.db"), nil, 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, TrainDir, ".a.png.1.tmp"), nil, 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, FilmsFile), []byte("name,split,patient\nb,train,P7\nt,test,P9\n"), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, StatisticsFile), []byte(`{"mean":0.5,"std":0.25}`), 0o666))
	for _, when := range []string{"first", "with index"} {
		d, err := Open(dir, nil)
		require.NoError(t, err, when)
		require.Equal(t, []int{64, 32}, []int{d.Width, d.Height})
		require.Equal(t, []Values{{0.5}, {0.25}}, []Values{d.Mean, d.Std})
		var names []string
		for _, s := range append(d.Train, d.Test...) {
			names = append(names, s.Name+":"+s.Patient)
		}
		require.Equal(t, "a: b:P7 b2: t:P9", strings.Join(names, " "))
		require.Empty(t, d.Test[0].Mask)
		require.Empty(t, d.Duplicates)
		img, mask, err := d.Train[1].Load(d.Task)
		require.NoError(t, err)
		require.Equal(t, sketch.Plain(64, 32, 1).Pix, img.Pix8)
		box := sketch.Box(64, 32, image.Rect(3, 5, 7, 9)).Pix
		for i := range box {
			box[i] /= 255
		}
		require.Equal(t, box, mask)
		require.FileExists(t, filepath.Join(dir, IndexFile))
	}
}

func TestOpenErrors(t *testing.T) {
	path := filepath.Join
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, dir string)
		wanted []string // parts of the message
	}{
		{"no folder", func(t *testing.T, dir string) { os.RemoveAll(dir) }, []string{"no folder", "examples/prepare"}},
		{"no train", func(t *testing.T, dir string) { os.RemoveAll(path(dir, "train")) }, []string{"no folder train/"}},
		{"no masks", func(t *testing.T, dir string) { os.RemoveAll(path(dir, "masks")) }, []string{"no folder masks/"}},
		{"empty train", func(t *testing.T, dir string) {
			os.RemoveAll(path(dir, "train"))
			os.Mkdir(path(dir, "train"), 0o777)
		}, []string{"train holds no PNG image"}},
		{"image without mask", func(t *testing.T, dir string) { os.Remove(path(dir, "masks", "b.png")) },
			[]string{"train/b.png has no mask", "masks/b.png"}},
		{"last image without mask", func(t *testing.T, dir string) { os.Remove(path(dir, "masks", "b2.png")) },
			[]string{"train/b2.png has no mask"}},
		{"mask without image", func(t *testing.T, dir string) { os.Remove(path(dir, "train", "a.png")) },
			[]string{"masks/a.png has no image", "train/a.png"}},
		{"two sizes", func(t *testing.T, dir string) { sketch.WritePNG(t, sketch.Plain(32, 64, 1), dir, "train", "b.png") },
			[]string{"train/b.png is 32x64", "train/a.png is 64x32"}},
		{"mask of another size", func(t *testing.T, dir string) { sketch.WritePNG(t, sketch.Plain(32, 64, 1), dir, "masks", "a.png") },
			[]string{"masks/a.png is 32x64"}},
		{"test image of another size", func(t *testing.T, dir string) { sketch.WritePNG(t, sketch.Plain(64, 64, 1), dir, "test", "t.png") },
			[]string{"test/t.png is 64x64"}},
		{"no multiple of 32", func(t *testing.T, dir string) { sketch.WritePNG(t, sketch.Plain(64, 40, 1), dir, "train", "a.png") },
			[]string{"train/a.png is 64x40", "multiples of 32", "-size"}},
		{"not a picture", func(t *testing.T, dir string) { os.WriteFile(path(dir, "train", "b.png"), []byte("hello"), 0o666) },
			[]string{"train/b.png", "not a PNG or JPEG", "replace"}},
		{"empty file", func(t *testing.T, dir string) { os.Truncate(path(dir, "train", "b.png"), 0) },
			[]string{"train/b.png", "empty file"}},
		{"cut short", func(t *testing.T, dir string) { os.Truncate(path(dir, "masks", "b.png"), 60) },
			[]string{"picture: ", "masks/b.png: png: ", "replace"}},
		{"two of one name", func(t *testing.T, dir string) { sketch.WritePNG(t, sketch.Plain(64, 32, 1), dir, "train", "b.PNG") },
			[]string{"b.PNG", "b.png", "the same name"}},
		{"JPEG", func(t *testing.T, dir string) { os.WriteFile(path(dir, "train", "c.jpg"), nil, 0o666) },
			[]string{"train/c.jpg is not a PNG"}},
		{"masks of 2", func(t *testing.T, dir string) {
			m := image.NewGray(image.Rect(0, 0, 64, 32))
			m.Pix[7] = 2
			sketch.WritePNG(t, m, dir, "masks", "b.png")
		}, []string{"masks/b.png", "values 0, 2", "0 and 255, or 0 and 1"}},
		{"masks of 128", func(t *testing.T, dir string) {
			m := image.NewGray(image.Rect(0, 0, 64, 32))
			m.Pix[7] = 128
			sketch.WritePNG(t, m, dir, "masks", "b.png")
		}, []string{"masks/b.png", "values 0, 128"}},
		{"masks of grey edges", func(t *testing.T, dir string) {
			m := image.NewGray(image.Rect(0, 0, 64, 32))
			copy(m.Pix[7:], []uint8{64, 255, 191})
			sketch.WritePNG(t, m, dir, "masks", "b.png")
		}, []string{"masks/b.png", "values 0, 64, 191, 255", "white_only"}},
		{"masks in colours", func(t *testing.T, dir string) {
			m := image.NewRGBA(image.Rect(0, 0, 64, 32))
			m.Set(7, 7, color.RGBA{R: 255, A: 255})
			sketch.WritePNG(t, m, dir, "masks", "b.png")
		}, []string{"masks/b.png", "the mask has colours"}},
		{"classes", func(t *testing.T, dir string) { sketch.WriteText(t, "lung\n", dir, "classes.txt") },
			[]string{"classes.txt", "1 classes"}},
		{"statistics", func(t *testing.T, dir string) {
			os.WriteFile(path(dir, "statistics.json"), []byte(`{"mean":117,"std":40}`), 0o666)
		},
			[]string{"statistics.json", "mean 117"}},
		{"films", func(t *testing.T, dir string) { os.WriteFile(path(dir, "films.csv"), []byte("name,split\n"), 0o666) },
			[]string{"films.csv", "patient"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := smallDataset(t)
			c.spoil(t, dir)
			_, err := Open(dir, nil)
			require.Error(t, err)
			for _, w := range c.wanted {
				require.ErrorContains(t, err, w)
			}
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestOpenAnySize(t *testing.T) {
	dir := t.TempDir()
	sketch.WritePNG(t, sketch.Plain(33, 7, 1), dir, TrainDir, "a.png")
	sketch.WritePNG(t, sketch.Box(33, 7, image.Rectangle{}), dir, MasksDir, "a.png")
	d, err := Open(dir, &Options{Multiple: 1})
	require.NoError(t, err)
	require.Equal(t, []int{33, 7}, []int{d.Width, d.Height})
}

func TestDuplicates(t *testing.T) {
	dir := smallDataset(t)
	// The same pixels packed differently are the same picture.
	f, err := os.Create(filepath.Join(dir, TestDir, "again.png"))
	require.NoError(t, err)
	require.NoError(t, (&png.Encoder{CompressionLevel: png.NoCompression}).Encode(f, sketch.Plain(64, 32, 1)))
	require.NoError(t, f.Close())
	for range 2 {
		d, err := Open(dir, nil)
		require.NoError(t, err)
		require.Equal(t, [][]string{{"test/again.png", "train/b.png"}}, d.Duplicates)
	}
}

// The index is used only for unchanged files, and is never required.
func TestIndex(t *testing.T) {
	dir := smallDataset(t)
	file := filepath.Join(dir, IndexFile)
	_, err := Open(dir, &Options{NoIndex: true})
	require.NoError(t, err)
	require.NoFileExists(t, file)

	_, err = Open(dir, nil)
	require.NoError(t, err)
	good, err := os.ReadFile(file)
	require.NoError(t, err)

	// An index that lies about an unchanged file shows that the file is not read.
	x := readIndex(file)
	e := x["train/a.png"]
	e.hash = x["train/b.png"].hash
	x["train/a.png"] = e
	require.NoError(t, x.write(file))
	d, err := Open(dir, nil)
	require.NoError(t, err)
	require.Len(t, d.Duplicates, 1)

	// Broken ones are made again.
	for _, broken := range []string{"", "x\n", "file,bytes\n", string(good[:len(good)-20]), strings.Replace(string(good), "64", "many", 1)} {
		require.NoError(t, os.WriteFile(file, []byte(broken), 0o666))
		d, err := Open(dir, nil)
		require.NoError(t, err)
		require.Empty(t, d.Duplicates)
		now, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(good), string(now))
	}

	// A changed file is read again.
	sketch.WritePNG(t, sketch.Plain(64, 32, 1), dir, TrainDir, "a.png")
	d, err = Open(dir, nil)
	require.NoError(t, err)
	require.Len(t, d.Duplicates, 1)

	// So is one of the same length with a slightly later time.
	for i, seed := range []int{5, 1} {
		f, err := os.Create(filepath.Join(dir, TrainDir, "a.png"))
		require.NoError(t, err)
		require.NoError(t, (&png.Encoder{CompressionLevel: png.NoCompression}).Encode(f, sketch.Plain(64, 32, seed)))
		require.NoError(t, f.Close())
		later := time.Now().Add(time.Duration(i+1) * time.Second)
		require.NoError(t, os.Chtimes(f.Name(), later, later))
		d, err = Open(dir, nil)
		require.NoError(t, err)
		require.Len(t, d.Duplicates, i)
	}
}

func TestOpenSharedLungs(t *testing.T) {
	dir := golden.Path(t, "data/lungs-128")
	d, err := Open(dir, &Options{NoIndex: true})
	require.NoError(t, err)
	require.Len(t, d.Train, 81)
	require.Equal(t, []int{128, 128}, []int{d.Width, d.Height})
}

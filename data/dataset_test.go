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

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/stretchr/testify/require"
)

// writePNG makes a PNG file, and the folders above it.
func writePNG(t testing.TB, img image.Image, path ...string) string {
	t.Helper()
	p := filepath.Join(path...)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o777))
	f, err := os.Create(p)
	require.NoError(t, err)
	require.NoError(t, png.Encode(f, img))
	require.NoError(t, f.Close())
	return p
}

// plain returns a w x h image whose pixels differ from place to place and from
// one seed to the next, with all values below 255.
func plain(w, h int, seed int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = uint8((i*7 + i/w*13 + seed*29) % 251)
	}
	return img
}

// boxMask returns a w x h mask, 255 in the given box.
func boxMask(w, h int, box image.Rectangle) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, w, h))
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			m.SetGray(x, y, color.Gray{Y: 255})
		}
	}
	return m
}

// smallDataset makes a sound folder of 64x32 pixels: train a, b, b2 with masks,
// test t.
func smallDataset(t testing.TB) string {
	dir := t.TempDir()
	for i, n := range []string{"a", "b", "b2"} {
		writePNG(t, plain(64, 32, i), dir, TrainDir, n+".png")
		writePNG(t, boxMask(64, 32, image.Rect(3, 5, 3+4*i, 9)), dir, MasksDir, n+".png")
	}
	writePNG(t, plain(64, 32, 9), dir, TestDir, "t.png")
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
		require.Equal(t, []float64{0.5, 0.25}, []float64{d.Mean, d.Std})
		var names []string
		for _, s := range append(d.Train, d.Test...) {
			names = append(names, s.Name+":"+s.Patient)
		}
		require.Equal(t, "a: b:P7 b2: t:P9", strings.Join(names, " "))
		require.Empty(t, d.Test[0].Mask)
		require.Empty(t, d.Duplicates)
		img, mask, err := d.Train[1].Load()
		require.NoError(t, err)
		require.Equal(t, plain(64, 32, 1).Pix, img.Pix)
		require.Equal(t, boxMask(64, 32, image.Rect(3, 5, 7, 9)).Pix, mask.Pix)
		require.FileExists(t, filepath.Join(dir, IndexFile))
	}
}

// Only 255 is mask: fastai divides the bytes by 255 and truncates.
func TestLoadDropsGreyEdge(t *testing.T) {
	dir := t.TempDir()
	img := writePNG(t, plain(3, 2, 0), dir, "i.png")
	m := image.NewGray(image.Rect(0, 0, 3, 2))
	copy(m.Pix, []uint8{0, 1, 128, 254, 255, 191})
	_, mask, err := Sample{Image: img, Mask: writePNG(t, m, dir, "m.png")}.Load()
	require.NoError(t, err)
	require.Equal(t, []uint8{0, 0, 0, 0, 255, 0}, mask.Pix)
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
		{"two sizes", func(t *testing.T, dir string) { writePNG(t, plain(32, 64, 1), dir, "train", "b.png") },
			[]string{"train/b.png is 32x64", "train/a.png is 64x32"}},
		{"mask of another size", func(t *testing.T, dir string) { writePNG(t, plain(32, 64, 1), dir, "masks", "a.png") },
			[]string{"masks/a.png is 32x64"}},
		{"test image of another size", func(t *testing.T, dir string) { writePNG(t, plain(64, 64, 1), dir, "test", "t.png") },
			[]string{"test/t.png is 64x64"}},
		{"no multiple of 32", func(t *testing.T, dir string) { writePNG(t, plain(64, 40, 1), dir, "train", "a.png") },
			[]string{"train/a.png is 64x40", "multiples of 32", "-size"}},
		{"not a picture", func(t *testing.T, dir string) { os.WriteFile(path(dir, "train", "b.png"), []byte("hello"), 0o666) },
			[]string{"train/b.png", "not a PNG or JPEG", "replace"}},
		{"empty file", func(t *testing.T, dir string) { os.Truncate(path(dir, "train", "b.png"), 0) },
			[]string{"train/b.png", "empty file"}},
		{"cut short", func(t *testing.T, dir string) { os.Truncate(path(dir, "masks", "b.png"), 60) },
			[]string{"data: ", "masks/b.png: png: ", "replace"}},
		{"two of one name", func(t *testing.T, dir string) { writePNG(t, plain(64, 32, 1), dir, "train", "b.PNG") },
			[]string{"b.PNG", "b.png", "one name"}},
		{"JPEG", func(t *testing.T, dir string) { os.WriteFile(path(dir, "train", "c.jpg"), nil, 0o666) },
			[]string{"train/c.jpg is no PNG"}},
		{"masks of 1", func(t *testing.T, dir string) {
			for _, n := range []string{"a", "b", "b2"} {
				m := image.NewGray(image.Rect(0, 0, 64, 32))
				m.Pix[7] = 1
				writePNG(t, m, dir, "masks", n+".png")
			}
		}, []string{"masks/a.png has values 0 and 1"}},
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
	writePNG(t, plain(33, 7, 1), dir, TrainDir, "a.png")
	writePNG(t, boxMask(33, 7, image.Rectangle{}), dir, MasksDir, "a.png")
	d, err := Open(dir, &Options{Multiple: 1})
	require.NoError(t, err)
	require.Equal(t, []int{33, 7}, []int{d.Width, d.Height})
}

func TestDuplicates(t *testing.T) {
	dir := smallDataset(t)
	// The same pixels packed differently are the same picture.
	f, err := os.Create(filepath.Join(dir, TestDir, "again.png"))
	require.NoError(t, err)
	require.NoError(t, (&png.Encoder{CompressionLevel: png.NoCompression}).Encode(f, plain(64, 32, 1)))
	require.NoError(t, f.Close())
	for range 2 {
		d, err := Open(dir, nil)
		require.NoError(t, err)
		require.Equal(t, [][]string{{"test/again.png", "train/b.png"}}, d.Duplicates)
	}
}

// The index is believed for unchanged files only, and never needed.
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
	writePNG(t, plain(64, 32, 1), dir, TrainDir, "a.png")
	d, err = Open(dir, nil)
	require.NoError(t, err)
	require.Len(t, d.Duplicates, 1)

	// So is one of the same length that is a moment younger.
	for i, seed := range []int{5, 1} {
		f, err := os.Create(filepath.Join(dir, TrainDir, "a.png"))
		require.NoError(t, err)
		require.NoError(t, (&png.Encoder{CompressionLevel: png.NoCompression}).Encode(f, plain(64, 32, seed)))
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

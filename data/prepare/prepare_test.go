package prepare

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/internal/folderlock"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/rle"
	"github.com/stretchr/testify/require"
)

// formula returns the film of the Python code at TestRunGolden, 88x80; other
// seeds give other films.
func formula(seed int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, 88, 80))
	for i := range img.Pix {
		x, y := i%88, i/88
		img.Pix[i] = uint8((x*x/7 + y*3 + x*y/11 + (x/9+y/7)%2*40 + 17*seed) % 251)
	}
	return img
}

func writeDICOM(t testing.TB, img *image.Gray, uid, patient string, path ...string) string {
	t.Helper()
	p := filepath.Join(path...)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o777))
	var b bytes.Buffer
	require.NoError(t, dicom.Write(&b, &dicom.Film{
		Rows: img.Rect.Dy(), Columns: img.Rect.Dx(), Bits: 8, Pix8: img.Pix,
		SOPInstanceUID: uid, StudyUID: uid + ".1", SeriesUID: uid + ".2", PatientID: patient, Age: "041Y", Sex: "F", View: "PA",
	}, dicom.ExplicitLittleEndian))
	require.NoError(t, os.WriteFile(p, b.Bytes(), 0o666))
	return p
}

// source makes a folder in with n DICOM films "f00", "f01", ... in folders of their own, of
// which each third has two overlapping boxes as its mask, and test films "t0", "t1".
func source(t testing.TB, n int) (dir string, opt Options) {
	dir = t.TempDir()
	var table strings.Builder
	table.WriteString("ImageId, EncodedPixels\n")
	for i := range n {
		name := fmt.Sprintf("f%02d", i)
		writeDICOM(t, formula(i), fmt.Sprintf("1.2.3.%d", i), fmt.Sprintf("P%d", i/2), dir, "in", name, "series", name+".dcm")
		if i%3 != 0 {
			fmt.Fprintf(&table, "%s,-1\n", name)
			continue
		}
		for _, box := range []image.Rectangle{image.Rect(5, 10, 40, 50), image.Rect(30, 30, 60, 70)} {
			fmt.Fprintf(&table, "%s, %s\n", name, rle.Encode(sketch.Box(88, 80, box), nil))
		}
	}
	for i := range 2 {
		writeDICOM(t, formula(100+i), fmt.Sprintf("1.2.4.%d", i), "T", dir, "in-test", fmt.Sprintf("t%d.dcm", i))
	}
	return dir, Options{
		Images:      []string{filepath.Join(dir, "in")},
		Test:        []string{filepath.Join(dir, "in-test")},
		RLE:         sketch.WriteText(t, table.String(), dir, "rle.csv"),
		Out:         filepath.Join(dir, "out"),
		Preparation: sized(32),
	}
}

// tree returns the content of every file that matters under a folder.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		// The order of the journal's lines is that in which films became ready.
		if err != nil || d.IsDir() || d.Name() == journalFile || d.Name() == data.IndexFile || d.Name() == folderlock.File {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(rel)] = string(b)
		return err
	}))
	return files
}

// requireSameTree names the files that differ, not their bytes.
func requireSameTree(t testing.TB, want map[string]string, dir string) {
	t.Helper()
	got := tree(t, dir)
	for f := range want {
		require.Contains(t, got, f)
		require.True(t, want[f] == got[f], "%s differs", f)
	}
	for f := range got {
		require.Contains(t, want, f)
	}
}

// sized is the notebook's preparation for another size.
func sized(n int) data.Preparation {
	p := data.DefaultPreparation()
	p.Size = n
	return p
}

func geometry(img *image.Gray, n int) resize.Geometry {
	return resize.Geometry{FilmWidth: img.Rect.Dx(), FilmHeight: img.Rect.Dy(), Width: n, Height: n}
}

// open opens a prepared folder until the test ends or close is called.
func open(t testing.TB, dir string) *data.Dataset {
	t.Helper()
	d, err := data.Open(dir, nil)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func hash32(pix []uint8) string {
	h := sha256.Sum256(pix)
	return hex.EncodeToString(h[:16])
}

// The expected numbers are those of the notebook's chain on the same film,
// numpy 1.24.2, OpenCV 4.6.0, scikit-image 0.19.3:
//
//	y, x = np.mgrid[0:80, 0:88]
//	a = ((x*x//7 + y*3 + x*y//11 + (x//9+y//7)%2*40) % 251).astype(np.uint8)
//	o = exposure.equalize_adapthist(cv2.resize(a, (32, 32)))
//	hashlib.sha256((o*255).clip(0, 255).astype(np.uint8).tobytes()).hexdigest()[:32], o.mean(), o.std()
//	m = np.zeros((80, 88), np.uint8); m[10:50, 5:40] = 255; m[30:70, 30:60] = 255
//	s = np.round(cv2.resize(m.astype(np.float64), (32, 32))).astype(np.uint8)
//	hashlib.sha256(s.tobytes()).hexdigest()[:32], (m == 255).sum(), (s == 255).sum()
func TestRunGolden(t *testing.T) {
	_, opt := source(t, 1)
	opt.Test = nil
	sum, err := Run(context.Background(), opt)
	require.NoError(t, err)
	img, err := picture.OpenGray(filepath.Join(opt.Out, "train", "f00.png"), nil)
	require.NoError(t, err)
	require.Equal(t, "4d6774a366c72f49bce40ef2fe8471b6", hash32(img.Pix))
	mask, err := picture.OpenGray(filepath.Join(opt.Out, "masks", "f00.png"), nil)
	require.NoError(t, err)
	full := sketch.Box(88, 80, image.Rect(5, 10, 40, 50))
	for i, v := range sketch.Box(88, 80, image.Rect(30, 30, 60, 70)).Pix {
		full.Pix[i] |= v
	}
	grey, err := resize.Mask(full, 32, 32)
	require.NoError(t, err)
	require.Equal(t, "cbfaf9ccaf498114090d68439dfb46e7", hash32(grey.Pix))
	for i, v := range grey.Pix {
		require.Equal(t, v/255*255, mask.Pix[i]) // the notebook counts 255 alone
	}
	require.Equal(t, 344, bytes.Count(mask.Pix, []byte{255}))
	// Sums of 1024 values in another order.
	require.InDelta(t, 0.5261072958669355, sum.Statistics.Mean[0], 1e-14)
	require.InDelta(t, 0.28301661902320624, sum.Statistics.Std[0], 1e-14)
	films, err := os.ReadFile(filepath.Join(opt.Out, data.FilmsFile))
	require.NoError(t, err)
	require.Equal(t, "name,split,patient,age,sex,view,width,height,fit,levels,mask_pixels,source\n"+
		"f00,train,P0,041Y,F,PA,88,80,stretch,251,2400,"+filepath.Join(opt.Images[0], "f00", "series", "f00.dcm")+"\n", string(films))
}

func TestRun(t *testing.T) {
	_, opt := source(t, 7)
	var steps []string
	opt.Progress = func(done, total int) { steps = append(steps, fmt.Sprintf("%d/%d", done, total)) }
	sum, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.Equal(t, "0/9 1/9 2/9 3/9 4/9 5/9 6/9 7/9 8/9 9/9", strings.Join(steps, " "))
	require.Equal(t, []int{7, 2, 3, 0}, []int{sum.Train, sum.Test, sum.Positive, sum.Kept})

	d := open(t, opt.Out)
	require.Len(t, d.Train, 7)
	require.Len(t, d.Test, 2)
	require.Equal(t, "P2", d.Train[5].Patient)
	require.Equal(t, "T", d.Test[0].Patient)
	require.Equal(t, sum.Statistics.Mean, d.Mean)
	require.Equal(t, sum.Statistics.Std, d.Std)
	require.Empty(t, d.Duplicates)

	// A second run does nothing and changes nothing.
	before := tree(t, opt.Out)
	steps = nil
	again, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.Empty(t, steps)
	require.Equal(t, 9, again.Kept)
	require.Equal(t, sum.Statistics, again.Statistics)
	requireSameTree(t, before, opt.Out)
}

// The results of the notebook's own tools for the eleven real films: masks are
// where the official ones are, and none is transposed.
func TestRunSIIM(t *testing.T) {
	dir := golden.Path(t, "data/siim")
	out := filepath.Join(t.TempDir(), "siim")
	sum, err := Run(context.Background(), Options{
		Images: []string{filepath.Join(dir, "dicom"), filepath.Join(dir, "png")},
		RLE:    filepath.Join(dir, "train-rle.csv"),
		Out:    out,

		Preparation: data.DefaultPreparation(),
	})
	require.NoError(t, err)
	require.Equal(t, []int{11, 6, 0}, []int{sum.Train, sum.Positive, len(sum.Missing)})
	d := open(t, out)
	for _, s := range d.Train {
		official, err := picture.OpenGray(filepath.Join(dir, "masks", s.Name+".png"), nil)
		require.NoError(t, err)
		want, err := geometry(official, 256).Mask(official, resize.MaskLinear)
		require.NoError(t, err)
		got, err := picture.OpenGray(s.Mask, nil)
		require.NoError(t, err)
		require.Equal(t, want.Pix, got.Pix, s.Name)
	}
}

// The 81 films of lungs-128 were made by the notebook's chain in Python, where
// OpenCV read the files: ours have the same bytes, but for two coloured PNGs.
// OpenCV lets libpng make these grey, which rounds otherwise (a level at 1.3 % of
// the pixels of the one, and equalization makes more of it) and heeds the gamma
// that is noted in the other. Of these two the hashes are what the same chain makes
// of what Pillow, the notebook's reader, and we see in them:
//
//	a = np.array(Image.open(f).convert("L")) # Pillow 9.4.0; the others as in TestRunGolden
//	o = exposure.equalize_adapthist(cv2.resize(a, (128, 128)))
//	hashlib.sha256((o*255).clip(0, 255).astype(np.uint8).tobytes()).hexdigest()[:32]
func TestRunLungs(t *testing.T) {
	byPillow := map[string]string{
		"40779_2020_233_Fig2_HTML-a":                              "549621d6ec5c467f94cf4c70a25baa4d",
		"article_river_1a00a3c07ea311eab70491c6fb93d336-figure-2": "b0a11dd01b98a057990c743929bd9943",
	}
	want := golden.Path(t, "data/lungs-128")
	for set, films := range map[string]int{"jsrt": 36, "covid-v7": 45} {
		dir := golden.Path(t, "data/lungs/"+set)
		out := filepath.Join(t.TempDir(), set)
		_, err := Run(context.Background(), Options{
			Images:      []string{filepath.Join(dir, "images")},
			Masks:       filepath.Join(dir, "masks"),
			Out:         out,
			Preparation: sized(128),
		})
		require.NoError(t, err)
		d := open(t, out)
		require.Len(t, d.Train, films)
		for _, s := range d.Train {
			img, err := picture.OpenGray(s.Image, nil)
			require.NoError(t, err)
			ref, err := picture.OpenGray(filepath.Join(want, data.TrainDir, set+"_"+s.Name+".png"), nil)
			require.NoError(t, err)
			hash, ok := byPillow[s.Name]
			if !ok {
				hash = hash32(ref.Pix)
			}
			require.Equal(t, hash, hash32(img.Pix), s.Name)
		}
	}
}

func TestRunErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, dir string, opt *Options)
		wanted []string
	}{
		{"out inside the images", func(t *testing.T, dir string, opt *Options) { opt.Out = filepath.Join(opt.Images[0], "new", "out") },
			[]string{"new/out lies inside the input"}},
		{"out inside the masks", func(t *testing.T, dir string, opt *Options) {
			opt.RLE, opt.Masks, opt.Out = "", filepath.Join(dir, "in-test"), filepath.Join(dir, "in-test")
			opt.Test = nil
		}, []string{"in-test holds the input"}},
		{"no rows", func(t *testing.T, dir string, opt *Options) {
			opt.RLE = sketch.WriteText(t, "ImageId, EncodedPixels\n", dir, "b.csv")
		}, []string{"b.csv: there is no row with an image"}},
		{"patients without rows", func(t *testing.T, dir string, opt *Options) {
			opt.Patients = sketch.WriteText(t, "image,patient\n", dir, "p.csv")
		}, []string{"p.csv has no rows"}},
		{"runs of three classes", func(t *testing.T, dir string, opt *Options) {
			opt.Task.Classes = []string{"g", "a", "b"}
			opt.Preparation.MaskScaling = resize.MaskNearest
		}, []string{"masks of two classes, the task has 3"}},
		{"three classes mixed", func(t *testing.T, dir string, opt *Options) {
			opt.RLE, opt.Masks, opt.Task.Classes = "", filepath.Join(dir, "in-test"), []string{"g", "a", "b"}
		}, []string{"mask scaling linear is only for two classes"}},
		{"CLAHE of colours", func(t *testing.T, dir string, opt *Options) { opt.Task.Channels = 3 }, []string{"CLAHE is for grey images"}},
		{"four channels", func(t *testing.T, dir string, opt *Options) { opt.Task.Channels = 4 }, []string{"the task has 4 channels"}},
		{"no out", func(t *testing.T, dir string, opt *Options) { opt.Out = "" }, []string{"no output folder"}},
		{"no films", func(t *testing.T, dir string, opt *Options) { opt.Images, opt.Test = nil, nil }, []string{"no films given"}},
		{"no masks", func(t *testing.T, dir string, opt *Options) { opt.RLE = "" }, []string{"need masks"}},
		{"both masks", func(t *testing.T, dir string, opt *Options) { opt.Masks = dir }, []string{"give one of them"}},
		{"size", func(t *testing.T, dir string, opt *Options) { opt.Preparation.Size = -32 }, []string{"size -32"}},
		{"huge size", func(t *testing.T, dir string, opt *Options) { opt.Preparation.Size = 1 << 20 }, []string{"size 1048576"}},
		{"missing folder", func(t *testing.T, dir string, opt *Options) { opt.Images = []string{"/no/such"} },
			[]string{"no file or folder /no/such"}},
		{"missing masks", func(t *testing.T, dir string, opt *Options) { opt.RLE, opt.Masks = "", "/no/such" },
			[]string{"no folder /no/such"}},
		{"missing CSV", func(t *testing.T, dir string, opt *Options) { opt.RLE = "/no/such.csv" }, []string{"/no/such.csv"}},
		{"folder without films", func(t *testing.T, dir string, opt *Options) { opt.Images = []string{t.TempDir()} },
			[]string{"holds no DICOM, PNG or JPEG"}},
		{"out holds in", func(t *testing.T, dir string, opt *Options) { opt.Out = dir }, []string{"holds the input"}},
		{"broken CSV", func(t *testing.T, dir string, opt *Options) {
			opt.RLE = sketch.WriteText(t, "ImageId, EncodedPixels\nf00, 3 4 x\n", dir, "b.csv")
		}, []string{"b.csv", "line 2"}},
		{"another CSV", func(t *testing.T, dir string, opt *Options) {
			opt.RLE = sketch.WriteText(t, "ImageId, EncodedPixels\nother, -1\n", dir, "b.csv")
		}, []string{"none of the 4 films has a row in", "b.csv", "f00.dcm"}},
		{"films without a row", func(t *testing.T, dir string, opt *Options) {
			opt.RLE = sketch.WriteText(t, "ImageId, EncodedPixels\nf02, -1\n", dir, "b.csv")
		}, []string{"3 of 4 films have no row in", "f00.dcm", "f03.dcm", "-unlabelled skip"}},
		{"runs outside", func(t *testing.T, dir string, opt *Options) {
			opt.RLE = sketch.WriteText(t, "ImageId, EncodedPixels\nf00,-1\nf01,7000 41\nf02,-1\nf03,-1\n", dir, "b.csv")
		}, []string{"f01.dcm", "88x80", "b.csv", "line 3", "-keep-going"}},
		{"broken DICOM", func(t *testing.T, dir string, opt *Options) {
			os.Truncate(filepath.Join(dir, "in/f02/series/f02.dcm"), 900)
		}, []string{"f02.dcm", "-keep-going"}},
		{"DICOM that is none", func(t *testing.T, dir string, opt *Options) {
			sketch.WriteText(t, "hello", dir, "in/f02/series/f02.dcm")
		}, []string{"f02.dcm", "-keep-going"}},
		{"two of one name", func(t *testing.T, dir string, opt *Options) {
			sketch.WritePNG(t, formula(1), dir, "in", "f01.png")
		}, []string{"f01.dcm", "f01.png", "the same name"}},
		{"out is a file", func(t *testing.T, dir string, opt *Options) { opt.Out = sketch.WriteText(t, "", dir, "o") },
			[]string{"output folder"}},
		{"out of somebody else", func(t *testing.T, dir string, opt *Options) {
			sketch.WriteText(t, "", opt.Out, "train", "mine.png")
		},
			[]string{"prepare did not make", "train/mine.png"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, opt := source(t, 4)
			c.spoil(t, dir, &opt)
			_, err := Run(context.Background(), opt)
			require.Error(t, err)
			for _, w := range c.wanted {
				require.ErrorContains(t, err, w)
			}
			require.NotContains(t, err.Error(), "\n")
			require.Len(t, regexp.MustCompile(`\b(prepare|data|maskcsv|picture|resize): `).FindAllString(err.Error(), -1), 1, err.Error())
			require.LessOrEqual(t, strings.Count(err.Error(), c.wanted[0]), 1, err.Error())
			// Wrong options are found before the folder is made, and no film is
			// written partly.
			for path, content := range tree(t, dir) {
				if strings.HasPrefix(path, "out/") && strings.HasSuffix(path, ".png") && content != "" {
					_, err := png.Decode(strings.NewReader(content))
					require.NoError(t, err, path)
				}
				require.False(t, strings.HasSuffix(path, ".tmp"), path)
			}
			if _, err := os.Stat(opt.Out); err == nil && opt.Out == filepath.Join(dir, "out") {
				_, err := data.Open(opt.Out, nil)
				require.Error(t, err)
			}
		})
	}
}

func TestRunKeepGoing(t *testing.T) {
	dir, opt := source(t, 5)
	opt.KeepGoing = true
	bad := sketch.WriteText(t, "hello", dir, "in/f01/series/f01.dcm")
	worse := sketch.WriteText(t, "\x89PNG\r\n\x1a\nnot quite", dir, "in", "f04.dcm")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "in/f04")))
	sum, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.Equal(t, 3, sum.Train)
	require.Len(t, sum.Failed, 2)
	require.Equal(t, []string{bad, worse}, []string{sum.Failed[0].Path, sum.Failed[1].Path})
	var b strings.Builder
	_, err = sum.WriteTo(&b)
	require.NoError(t, err)
	require.Contains(t, b.String(), "2 films were left out:\n  "+bad+": ")
	d := open(t, opt.Out)
	require.Len(t, d.Train, 3)
	require.NoError(t, d.Close())

	// After the film is repaired, only this film is prepared.
	writeDICOM(t, formula(1), "1.2.3.1", "P0", bad)
	sum, err = Run(context.Background(), opt)
	require.NoError(t, err)
	require.Equal(t, []int{4, 5, 1}, []int{sum.Train, sum.Kept, len(sum.Failed)})

	_, opt = source(t, 1)
	opt.KeepGoing, opt.Test = true, nil
	sketch.WriteText(t, "hello", opt.Images[0], "f00/series/f00.dcm")
	_, err = Run(context.Background(), opt)
	require.ErrorContains(t, err, "none of the 1 films could be read")
}

func TestRunUnlabelled(t *testing.T) {
	for _, c := range []struct {
		what  Unlabelled
		train int
	}{{Skip, 2}, {Empty, 4}} {
		dir, opt := source(t, 4)
		opt.Unlabelled = c.what
		opt.RLE = sketch.WriteText(t, "ImageId, EncodedPixels\ngone,-1\nf02,-1\nf03,7 30\nf03,7 30\n", dir, "b.csv")
		sum, err := Run(context.Background(), opt)
		require.NoError(t, err)
		require.Equal(t, []int{c.train, 1}, []int{sum.Train, sum.Positive})
		require.Len(t, sum.Unlabelled, 2)
		require.Equal(t, []string{"gone"}, sum.Missing)
		require.Len(t, sum.Warnings, 1)
		require.Equal(t, []string{"f03"}, sum.Vanished) // a line one pixel wide
		var b strings.Builder
		_, err = sum.WriteTo(&b)
		require.NoError(t, err)
		for _, w := range []string{"1 label has no film: gone", "2 films have no label", "f00.dcm", "1 mask is too small", "line 5"} {
			require.Contains(t, b.String(), w)
		}
	}
}

// A DICOM file with another name is found by its UID.
func TestRunRenamed(t *testing.T) {
	dir, opt := source(t, 1)
	opt.RLE = sketch.WriteText(t, "ImageId, EncodedPixels\n1.2.3.0,-1\n", dir, "b.csv")
	_, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(opt.Out, "train", "1.2.3.0.png"))
}

// Pictures with masks: of the values 0 and 1, of another extension, and drawn on a
// photograph as it was stored or as it is seen.
func TestRunMasks(t *testing.T) {
	dir := t.TempDir()
	img := formula(3)
	sketch.WritePNG(t, img, dir, "images", "a.png")
	ones := sketch.Box(88, 80, image.Rect(5, 10, 40, 50))
	for i := range ones.Pix {
		ones.Pix[i] /= 255
	}
	sketch.WritePNG(t, ones, dir, "masks", "a.png")
	turned := sketch.WithEXIF(t, img, "png", sketch.EXIF(binary.BigEndian, 6))
	stored, seen := sketch.Box(88, 80, image.Rect(5, 10, 40, 50)), picture.Turn(sketch.Box(88, 80, image.Rect(5, 10, 40, 50)), 6)
	for name, m := range map[string]*image.Gray{"b": stored, "c": seen} {
		sketch.WriteText(t, string(turned), dir, "images", name+".png")
		sketch.WritePNG(t, m, dir, "masks", name+".png")
	}
	sketch.WriteText(t, "image,patient\nb,Anna\n", dir, "patients.csv")
	opt := Options{Images: []string{filepath.Join(dir, "images")}, Masks: filepath.Join(dir, "masks"),
		Patients: filepath.Join(dir, "patients.csv"), Out: filepath.Join(dir, "out"), Preparation: sized(32)}
	opt.Preparation.MaskScaling = resize.MaskNearest
	_, err := Run(context.Background(), opt)
	require.NoError(t, err)
	d := open(t, opt.Out)
	require.Equal(t, []string{"", "Anna", ""}, []string{d.Train[0].Patient, d.Train[1].Patient, d.Train[2].Patient})
	require.Equal(t, [][]string{{"train/b.png", "train/c.png"}}, d.Duplicates)
	for i, m := range []*image.Gray{stored, seen, seen} {
		want, err := geometry(m, 32).Mask(m, resize.MaskNearest)
		require.NoError(t, err)
		_, got, err := d.Train[i].Load(d.Task)
		require.NoError(t, err)
		d.Task.Values(got)
		require.Equal(t, want.Pix, got, d.Train[i].Name)
	}

	require.NoError(t, d.Close())
	sketch.WritePNG(t, sketch.Plain(87, 80, 1), dir, "masks", "a.png")
	_, err = Run(context.Background(), opt)
	require.ErrorContains(t, err, "images/a.png: it has 88x80 pixels, but its mask")
	require.NoError(t, os.Remove(filepath.Join(dir, "masks", "a.png")))
	_, err = Run(context.Background(), opt)
	require.ErrorContains(t, err, "1 of 3 films have no mask in")
}

// After a run was stopped, Open returns an error for the folder; the next run
// gives the same files as a run that was not stopped.
func TestRunStopped(t *testing.T) {
	_, opt := source(t, 9)
	opt.Workers = 2
	whole := opt
	whole.Out += "-whole"
	_, err := Run(context.Background(), whole)
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(context.Background())
	opt.Progress = func(done, total int) {
		if done == 4 {
			cancel()
		}
	}
	_, err = Run(ctx, opt)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "of 11 films; the same command continues from here")
	_, err = data.Open(opt.Out, nil)
	require.ErrorContains(t, err, "only partly prepared")

	opt.Progress = nil
	sum, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.GreaterOrEqual(t, sum.Kept, 4)
	require.Less(t, sum.Kept, 11)
	requireSameTree(t, tree(t, whole.Out), opt.Out)
}

// The journal's last line may be cut anywhere, and files may be missing or cut.
func TestRunDamaged(t *testing.T) {
	_, opt := source(t, 5)
	_, err := Run(context.Background(), opt)
	require.NoError(t, err)
	want := tree(t, opt.Out)
	journal, err := os.ReadFile(filepath.Join(opt.Out, journalFile))
	require.NoError(t, err)
	for _, cut := range []int{bytes.IndexByte(journal, 10) + 1, len(journal) / 2, len(journal) - 2} {
		require.NoError(t, os.Remove(filepath.Join(opt.Out, journalFile)))
		require.NoError(t, os.WriteFile(filepath.Join(opt.Out, data.UnfinishedFile), journal[:cut], 0o666))
		sketch.WriteText(t, "part of a", opt.Out, "train", ".f03.png.123.tmp")
		sum, err := Run(context.Background(), opt)
		require.NoError(t, err, cut)
		require.Less(t, sum.Kept, 7)
		requireSameTree(t, want, opt.Out)
	}
	require.NoError(t, os.Truncate(filepath.Join(opt.Out, journalFile), 10))
	_, err = Run(context.Background(), opt)
	require.ErrorContains(t, err, "journal of an earlier run is broken")
	require.NoError(t, os.WriteFile(filepath.Join(opt.Out, journalFile), journal, 0o666))
	require.NoError(t, os.Truncate(filepath.Join(opt.Out, "train", "f02.png"), 50))
	require.NoError(t, os.Remove(filepath.Join(opt.Out, "masks", "f03.png")))
	sum, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.Equal(t, 5, sum.Kept)
	requireSameTree(t, want, opt.Out)
}

// Changed films are prepared again; changed options and other films are refused.
func TestRunChanged(t *testing.T) {
	dir, opt := source(t, 4)
	_, err := Run(context.Background(), opt)
	require.NoError(t, err)

	writeDICOM(t, formula(55), "1.2.3.1", "P0", dir, "in/f01/series/f01.dcm")
	rows, err := os.ReadFile(opt.RLE)
	require.NoError(t, err)
	sketch.WriteText(t, strings.Replace(string(rows), "f02,-1", "f02,100 800", 1), opt.RLE)
	sum, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.Equal(t, []int{4, 3}, []int{sum.Kept, sum.Positive})

	other := opt
	other.Preparation.Size, other.Preparation.CLAHE = 64, false
	_, err = Run(context.Background(), other)
	require.ErrorContains(t, err, "other options (size 32, now size 64; CLAHE true, now CLAHE false)")

	require.NoError(t, os.RemoveAll(filepath.Join(dir, "in/f00")))
	_, err = Run(context.Background(), opt)
	require.ErrorContains(t, err, "train/f00")
	require.ErrorContains(t, err, "not among the given ones")
}

// A killed process leaves nothing broken. The test runs itself as the process that
// is killed.
func TestRunKilled(t *testing.T) {
	if out := os.Getenv("HCUNET_TEST_PREPARE"); out != "" {
		in := filepath.Dir(out)
		Run(context.Background(), Options{Images: []string{in + "/in"}, Test: []string{in + "/in-test"}, RLE: in + "/rle.csv", Out: out, Preparation: sized(32)})
		os.Exit(0)
	}
	if testing.Short() {
		t.Skip("starts processes")
	}
	_, opt := source(t, 60)
	whole := opt
	whole.Out += "-whole"
	_, err := Run(context.Background(), whole)
	require.NoError(t, err)
	exe, err := os.Executable()
	require.NoError(t, err)
	for i := range 8 {
		cmd := exec.Command(exe, "-test.run=TestRunKilled")
		cmd.Env = append(os.Environ(), "HCUNET_TEST_PREPARE="+opt.Out)
		require.NoError(t, cmd.Start())
		time.Sleep(time.Duration(10+6*i) * time.Millisecond)
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		for path, content := range tree(t, filepath.Dir(opt.Out)) {
			if strings.HasPrefix(path, "out/") && strings.HasSuffix(path, ".png") {
				_, err := png.Decode(strings.NewReader(content))
				require.NoError(t, err, path)
			}
		}
	}
	_, err = Run(context.Background(), opt)
	require.NoError(t, err)
	requireSameTree(t, tree(t, whole.Out), opt.Out)
}

// If the output cannot be written, the error says so, also with KeepGoing.
func TestRunUnwritable(t *testing.T) {
	_, opt := source(t, 3)
	opt.KeepGoing = true
	// A folder stands where a file is to be.
	require.NoError(t, os.MkdirAll(filepath.Join(opt.Out, data.UnfinishedFile), 0o777))
	_, err := Run(context.Background(), opt)
	require.Error(t, err)
	require.NoError(t, os.RemoveAll(opt.Out))
	opt.Progress = func(done, total int) {
		if done == 1 {
			require.NoError(t, os.RemoveAll(filepath.Join(opt.Out, data.TrainDir)))
		}
	}
	opt.Workers = 1
	_, err = Run(context.Background(), opt)
	require.True(t, errors.Is(err, fs.ErrNotExist), err)
	require.ErrorContains(t, err, "run again")
}

// No text in a film can lead to a path outside the folder.
func TestRunEscaping(t *testing.T) {
	dir := t.TempDir()
	for uid, sound := range map[string]string{"../../escaped": "1.2.3.4.5.6.7", "..": "12", ".hidden": "1.2.3.4", "/etc/x": "1.2.34"} {
		file := writeDICOM(t, formula(1), sound, "P", dir, "in", "f.dcm")
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, bytes.ReplaceAll(b, []byte(sound), []byte(uid)), 0o666))
		opt := Options{Images: []string{filepath.Join(dir, "in")}, Out: filepath.Join(dir, "a", "b", "out"), Preparation: sized(32),
			RLE: sketch.WriteText(t, uid+",-1\n", dir, "rle.csv")}
		_, err = Run(context.Background(), opt)
		require.ErrorContains(t, err, "cannot be a file name", uid)
		require.ErrorContains(t, err, "f.dcm")
	}
	for path := range tree(t, dir) {
		require.Contains(t, []string{"in/f.dcm", "rle.csv"}, path)
	}
}

// A film without contrast is reported, and unusable statistics are not written.
func TestRunFlat(t *testing.T) {
	dir := t.TempDir()
	two := image.NewGray(image.Rect(0, 0, 40, 40))
	for i := range two.Pix {
		two.Pix[i] = uint8(40 * (i % 2))
	}
	sketch.WritePNG(t, two, dir, "in", "two.png")
	opt := Options{Images: []string{filepath.Join(dir, "in")}, RLE: sketch.WriteText(t, "one,-1\ntwo,-1\n", dir, "rle.csv"),
		Out: filepath.Join(dir, "out"), Preparation: sized(32)}
	sum, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "in", "two.png") + ": it has only 2 different values"}, sum.Warnings)
	d := open(t, opt.Out)
	r, err := data.Check(d, nil)
	require.NoError(t, err)
	found := fmt.Sprint(r.Findings)
	require.Contains(t, found, "its film has 2 different values")

	opt.Out += "-one"
	require.NoError(t, os.Remove(filepath.Join(dir, "in", "two.png")))
	sketch.WritePNG(t, image.NewGray(two.Rect), dir, "in", "one.png")
	sum, err = Run(context.Background(), opt)
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(sum.Warnings), "it has only 1 value")
	require.Contains(t, fmt.Sprint(sum.Warnings), "no statistics to train with")
	require.NoFileExists(t, filepath.Join(opt.Out, data.StatisticsFile))
	open(t, opt.Out)
}

// Two programs in one folder at once: the second has to wait.
func TestRunLocked(t *testing.T) {
	_, opt := source(t, 3)
	other := opt
	var busy, reading error
	opt.Progress = func(done, total int) {
		if done == 1 {
			_, busy = Run(context.Background(), other)
			_, reading = data.Open(opt.Out, nil)
		}
	}
	_, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.ErrorIs(t, busy, folderlock.ErrBusy)
	require.ErrorIs(t, reading, folderlock.ErrBusy)

	// While another program reads the folder, Run does not change it; a run with
	// nothing to do is allowed.
	d := open(t, opt.Out)
	_, err = Run(context.Background(), other)
	require.NoError(t, err)
	require.NoError(t, os.Remove(d.Train[0].Image))
	_, err = Run(context.Background(), other)
	require.ErrorIs(t, err, folderlock.ErrBusy)
	require.ErrorContains(t, err, "wait for it to end")
	require.NoError(t, d.Close())
	_, err = Run(context.Background(), other)
	require.NoError(t, err)
}

// Three classes with names, from palette masks, in colours and with 16 bits.
func TestRunClasses(t *testing.T) {
	dir := t.TempDir()
	film := image.NewNRGBA64(image.Rect(0, 0, 20, 10))
	mask := image.NewPaletted(film.Rect, color.Palette{color.Black, color.NRGBA{9, 9, 200, 255}, color.NRGBA{9, 200, 9, 255}})
	for i := range mask.Pix {
		x, y := i%20, i/20
		film.SetNRGBA64(x, y, color.NRGBA64{uint16(3000 * x), uint16(6000 * y), 0x1234, 0xffff})
		mask.Pix[i] = uint8(x / 7)
	}
	sketch.WritePNG(t, film, dir, "in", "a.png")
	sketch.WritePNG(t, mask, dir, "masks", "a.png")
	opt := Options{Images: []string{filepath.Join(dir, "in")}, Masks: filepath.Join(dir, "masks"), Out: filepath.Join(dir, "out"),
		Task:        data.Task{Classes: []string{"ground", "left", "right"}, Channels: 3},
		Preparation: data.Preparation{Size: 20, Fit: resize.Pad, MaskScaling: resize.MaskNearest, Bits: 16}}
	sum, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.Len(t, sum.Warnings, 1) // 20 values of red, 10 of green, one of blue, two of them shared
	require.Contains(t, sum.Warnings[0], "only 21 different values")
	d, err := data.Open(opt.Out, &data.Options{Multiple: 1, Task: data.Task{Channels: 3}})
	require.NoError(t, err)
	defer d.Close()
	require.Equal(t, opt.Task.Classes, d.Task.Classes)
	require.Equal(t, sum.Statistics.Mean, d.Preparation.Mean)
	img, classes, err := d.Train[0].Load(d.Task)
	require.NoError(t, err)
	require.Equal(t, 16, img.Bits())
	at := func(c, x, y int) uint16 { return img.Pix16[(c*20+y)*20+x] }
	// The film lies in rows 5 to 14.
	require.Equal(t, []uint16{3000 * 11, 6000 * 4, 0x1234}, []uint16{at(0, 11, 9), at(1, 11, 9), at(2, 11, 9)})
	require.Equal(t, []uint16{0, 0, 0}, []uint16{at(0, 11, 4), at(1, 11, 4), at(2, 11, 15)})
	require.Equal(t, []uint8{0, 1, 2, 0}, []uint8{classes[20*9+6], classes[20*9+7], classes[20*9+14], classes[20*4+14]})

	// And back: the mask in the film's own shape.
	g := d.Train[0].Geometry
	require.Equal(t, resize.Geometry{FilmWidth: 20, FilmHeight: 10, Width: 20, Height: 20, Fit: resize.Pad}, g)
	back, err := g.Back(&image.Gray{Pix: classes, Stride: 20, Rect: image.Rect(0, 0, 20, 20)})
	require.NoError(t, err)
	require.Equal(t, mask.Pix, back.Pix)
}

// There are warnings about colours that become grey and about masks with more
// than two values.
func TestRunWarnings(t *testing.T) {
	dir := t.TempDir()
	film := image.NewRGBA(image.Rect(0, 0, 64, 40))
	for i := range 64 * 40 {
		film.Set(i%64, i/64, color.RGBA{uint8(i), uint8(i / 9), 7, 255})
	}
	sketch.WritePNG(t, film, dir, "in", "a.png")
	mask := sketch.Box(64, 40, image.Rect(3, 3, 20, 20))
	mask.Pix[0] = 100
	sketch.WritePNG(t, mask, dir, "masks", "a.png")
	sum, err := Run(context.Background(), Options{Images: []string{filepath.Join(dir, "in")}, Masks: filepath.Join(dir, "masks"),
		Out: filepath.Join(dir, "out"), Preparation: sized(32)})
	require.NoError(t, err)
	require.Len(t, sum.Warnings, 2)
	require.Contains(t, sum.Warnings[0], "a.png: its colours became grey")
	require.Contains(t, sum.Warnings[1], "values of 128 and above are mask")
	var b strings.Builder
	_, err = sum.WriteTo(&b)
	require.NoError(t, err)
	require.Contains(t, b.String(), "colours became grey")
}

// There are warnings about DICOM files too: a file without preamble is read
// whatever its name is, and one with few values is reported, like a picture.
func TestRunFaults(t *testing.T) {
	dir := t.TempDir()
	sound, err := os.ReadFile(writeDICOM(t, formula(1), "1.2.3.1", "P", dir, "sound.dcm"))
	require.NoError(t, err)
	bare := sketch.WriteText(t, string(sound[132:]), dir, "in", "bare")
	sketch.WriteText(t, "not a film", dir, "in", "notes")
	few := formula(2)
	for i, v := range few.Pix {
		few.Pix[i] = v % 9
	}
	path := writeDICOM(t, few, "1.2.3.2", "P", dir, "in", "few.dcm")
	opt := Options{Images: []string{filepath.Join(dir, "in")}, RLE: sketch.WriteText(t, "bare,-1\nfew,-1\n", dir, "rle.csv"),
		Out: filepath.Join(dir, "out"), Preparation: sized(32)}
	sum, err := Run(context.Background(), opt)
	require.NoError(t, err)
	require.Equal(t, 2, sum.Train)
	require.Equal(t, []string{
		bare + ": the file has no preamble; it begins with its meta information",
		path + ": it has only 9 different values",
	}, sum.Warnings)
	r, err := data.Check(open(t, opt.Out), nil)
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(r.Findings), "few.png its film has 9 different values")
}

package data

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/internal/folderlock"
	"github.com/hcunet/hcunet/internal/words"
)

// Names inside a dataset's folder. The first three are the notebook's; the rest
// is what Prepare and Open leave beside them.
const (
	TrainDir = "train" // images, NAME.png
	MasksDir = "masks" // a mask for each of them, NAME.png
	TestDir  = "test"  // images without masks

	StatisticsFile = "statistics.json" // see Statistics
	FilmsFile      = "films.csv"       // where each image came from, its patient
	ClassesFile    = "classes.txt"     // names of the classes, see ReadClasses
	IndexFile      = "index.csv"       // what Open has seen; may be deleted at any time

	// UnfinishedFile stands in a folder that is only partly prepared.
	UnfinishedFile = "prepare.unfinished"
)

// Options of Open; nil means all defaults.
type Options struct {
	// Task is what the images are about. Where it has no classes, those of the
	// classes file are taken, or without one a background and a mask; 0 channels
	// mean 1.
	Task Task

	// Multiple is what width and height must be multiples of; 0 means 32, the
	// stride of a five-stage encoder, and 1 allows any size.
	Multiple int

	// NoStatistics leaves the statistics file unread, wrong as it may be.
	NoStatistics bool

	// NoIndex neither reads nor writes the index file.
	NoIndex bool

	// Workers is the number of files decoded at a time; 0 means one per core.
	Workers int
}

// Dataset is a folder of images and masks that have been looked at: every file
// decodes, every image has its mask, all have one size, and every value of a mask
// is known to the task.
type Dataset struct {
	Dir           string
	Task          Task
	Train, Test   []Sample // sorted by Name, byte by byte
	Width, Height int      // pixels of every image and mask

	// Mean and Std are those of the training images' values in [0, 1] as the
	// statistics file has them, for each channel; nil where there is none.
	Mean, Std Values

	// Preparation is how the images were made; nil where nobody knows.
	Preparation *Preparation

	// Warnings say what is lost when the images are loaded.
	Warnings []string

	// Duplicates are the groups of images whose pixels are all the same, as
	// paths inside Dir ("train/a.png"), sorted.
	Duplicates [][]string

	index index
	lock  *folderlock.Lock
}

// Close lets others change the folder: until then, or until the Dataset is garbage,
// it cannot be prepared again.
func (d *Dataset) Close() error { return d.lock.Unlock() }

// Sample is one image of a dataset.
type Sample struct {
	Name    string // file name without its extension
	Image   string // path
	Mask    string // path; empty in the test set
	Patient string // empty where it is not known

	// What the films file knows of the film that the image was made of: how it lies
	// in the image, and its number of different values; zero where it is not known.
	Geometry resize.Geometry
	Levels   int
}

// Load reads the image, with the channels that the task says and the bits that the
// file has, and the mask as the number of each pixel's class, row-major; the mask is
// nil for a sample without one.
func (s Sample) Load(task Task) (img *picture.Image, mask []uint8, err error) {
	if err := task.checkFiles(); err != nil {
		return nil, nil, err
	}
	if img, err = picture.Open(s.Image, &picture.Options{Channels: task.Channels}); err != nil {
		return nil, nil, err
	}
	if s.Mask == "" {
		return img, nil, nil
	}
	m, err := picture.OpenMask(s.Mask, nil)
	if err != nil {
		return nil, nil, err
	}
	if w, h := m.Rect.Dx(), m.Rect.Dy(); w != img.Width || h != img.Height {
		return nil, nil, fmt.Errorf("data: %s is %dx%d, but %s is %dx%d; prepare the folder again", s.Mask, w, h, s.Image, img.Width, img.Height)
	}
	if err := task.Targets(m.Pix); err != nil {
		return nil, nil, fmt.Errorf("data: %s: %w", s.Mask, err)
	}
	return img, m.Pix, nil
}

// checkFiles returns an error if the task is wrong or no picture can serve it.
func (t Task) checkFiles() error {
	if err := t.Check(); err != nil {
		return err
	}
	if t.Channels != 1 && t.Channels != 3 {
		return fmt.Errorf("data: the task has %d channels; picture files have 1 (grey) or 3 (red, green, blue)", t.Channels)
	}
	return nil
}

// Open reads the folder dir in the notebook's layout: train/, masks/ and, if there
// is one, test/, all of PNG files. Hidden files and files that are no pictures
// are passed over.
//
// The first Open of a folder decodes every file and writes an index; later ones
// decode only what has another size or time than the index says.
//
// The error names one file and what to do: no such folder, nothing in train/, an
// image without a mask or the reverse, another size than the others, a size that
// is no multiple of Options.Multiple, a picture that is no PNG or is broken, a mask
// with values that the task does not know.
func Open(dir string, opt *Options) (*Dataset, error) {
	if opt == nil {
		opt = &Options{}
	}
	if err := isDir(dir, "make one with examples/prepare, or with examples/phantom first"); err != nil {
		return nil, err
	}
	// A folder that cannot be written to has no lock, and needs none.
	lock, err := folderlock.Shared(dir)
	if errors.Is(err, folderlock.ErrBusy) {
		return nil, fmt.Errorf("data: %w: prepare is making it; wait for it to end", err)
	}
	d, err := open(dir, opt)
	if err != nil {
		_ = lock.Unlock() // it has nothing to add
		return nil, err
	}
	d.lock = lock
	return d, nil
}

func open(dir string, opt *Options) (*Dataset, error) {
	d := &Dataset{Dir: dir, Task: opt.Task}
	if _, err := os.Stat(filepath.Join(dir, UnfinishedFile)); err == nil {
		return nil, fmt.Errorf("data: %s is only partly prepared; run the command that makes it again, it goes on where it was", dir)
	}
	if err := d.completeTask(); err != nil {
		return nil, err
	}
	train, err := listPNG(dir, TrainDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data: %s has no folder train/; it must hold train/ and masks/ as examples/prepare makes them", dir)
	} else if err != nil {
		return nil, err
	}
	if len(train) == 0 {
		return nil, fmt.Errorf("data: %s holds no PNG image; make some with examples/prepare", filepath.Join(dir, TrainDir))
	}
	masks, err := listPNG(dir, MasksDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data: %s has no folder masks/; every image in train/ needs a mask of the same name there", dir)
	} else if err != nil {
		return nil, err
	}
	test, err := listPNG(dir, TestDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := sameNames(dir, train, masks); err != nil {
		return nil, err
	}

	films, err := readFilms(filepath.Join(dir, FilmsFile))
	if err != nil {
		return nil, err
	}
	sample := func(split, file string) Sample {
		name := strings.TrimSuffix(file, filepath.Ext(file))
		film := films[split+"/"+name]
		return Sample{
			Name:    name,
			Image:   filepath.Join(dir, split, file),
			Patient: film.patient,
			Levels:  film.levels,

			Geometry: film.geometry,
		}
	}
	for i, file := range train {
		s := sample(TrainDir, file)
		s.Mask = filepath.Join(dir, MasksDir, masks[i])
		d.Train = append(d.Train, s)
	}
	for _, file := range test {
		d.Test = append(d.Test, sample(TestDir, file))
	}

	var files []string
	for dir, names := range map[string][]string{TrainDir: train, MasksDir: masks, TestDir: test} {
		for _, n := range names {
			files = append(files, dir+"/"+n)
		}
	}
	// Images before masks, so that a wrong size is told of the image.
	slices.SortFunc(files, func(a, b string) int {
		return cmp.Or(cmp.Compare(splitOrder(a), splitOrder(b)), cmp.Compare(a, b))
	})
	if d.index, err = scan(dir, files, opt, d.checkSizes); err != nil {
		return nil, err
	}
	if err := d.checkMaskValues(masks); err != nil {
		return nil, err
	}
	d.completeGeometry()
	d.checkColours(files)
	d.findDuplicates(files)

	if opt.NoStatistics {
		return d, nil
	}
	st, err := ReadStatistics(filepath.Join(dir, StatisticsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if n := len(st.Mean); n > 0 && n != d.Task.Channels {
		return nil, fmt.Errorf("data: %s has the statistics of %d channels, but the task has %d; delete it, or prepare the folder again", filepath.Join(dir, StatisticsFile), n, d.Task.Channels)
	}
	d.Mean, d.Std, d.Preparation = st.Mean, st.Std, st.Preparation
	return d, nil
}

// completeGeometry fills in the size of the images where their films' is known.
func (d *Dataset) completeGeometry() {
	for _, samples := range [][]Sample{d.Train, d.Test} {
		for i := range samples {
			if g := &samples[i].Geometry; g.FilmWidth > 0 && g.FilmHeight > 0 {
				g.Width, g.Height = d.Width, d.Height
			} else {
				*g = resize.Geometry{}
			}
		}
	}
}

// completeTask fills in what the options leave to the folder.
func (d *Dataset) completeTask() error {
	file := filepath.Join(d.Dir, ClassesFile)
	classes, err := ReadClasses(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case len(d.Task.Classes) == 0 && classes != nil:
		d.Task.Classes = classes
	case len(d.Task.Classes) == 0:
		d.Task.Classes = Binary("mask").Classes
	case classes != nil && !slices.Equal(classes, d.Task.Classes):
		return fmt.Errorf("data: the task has the classes %s, but %s has %s; make them the same", words.Some(d.Task.Classes, 5), file, words.Some(classes, 5))
	}
	d.Task.Channels = cmp.Or(d.Task.Channels, 1)
	return d.Task.checkFiles()
}

func splitOrder(file string) int {
	return slices.Index([]string{TrainDir, TestDir, MasksDir}, file[:strings.IndexByte(file, '/')])
}

// isDir returns a clear error if path is no folder.
func isDir(path, remedy string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data: no folder %s; %s", path, remedy)
	} else if err != nil {
		return fmt.Errorf("data: %w", err)
	} else if !st.IsDir() {
		return fmt.Errorf("data: %s is a file, wanted a folder; %s", path, remedy)
	}
	return nil
}

// listPNG returns the names of the PNG files in dir/sub, sorted.
func listPNG(dir, sub string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, sub))
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	var names []string
	stems := map[string]string{}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || strings.HasPrefix(name, ".") {
			continue
		}
		switch strings.ToLower(filepath.Ext(name)) {
		case ".png":
			stem := strings.TrimSuffix(name, filepath.Ext(name))
			if other, ok := stems[stem]; ok {
				return nil, fmt.Errorf("data: %s and %s have one name; remove one of them", filepath.Join(dir, sub, other), filepath.Join(dir, sub, name))
			}
			stems[stem] = name
			names = append(names, name)
		case ".jpg", ".jpeg", ".dcm", ".tif", ".tiff", ".bmp", ".gif", ".webp":
			return nil, fmt.Errorf("data: %s is no PNG file; make the folder with examples/prepare", filepath.Join(dir, sub, name))
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return strings.Compare(strings.TrimSuffix(a, filepath.Ext(a)), strings.TrimSuffix(b, filepath.Ext(b)))
	})
	return names, nil
}

// sameNames returns an error that names the first file without its counterpart.
func sameNames(dir string, train, masks []string) error {
	stem := func(names []string, i int) (string, bool) {
		if i == len(names) {
			return "", false
		}
		return strings.TrimSuffix(names[i], filepath.Ext(names[i])), true
	}
	for i := 0; i < len(train) || i < len(masks); i++ {
		t, haveTrain := stem(train, i)
		m, haveMask := stem(masks, i)
		switch {
		case haveTrain && haveMask && t == m:
		case !haveMask || haveTrain && t < m:
			return fmt.Errorf("data: %s has no mask; put one at %s (all black if nothing is there to be found) or remove the image",
				filepath.Join(dir, TrainDir, train[i]), filepath.Join(dir, MasksDir, train[i]))
		default:
			return fmt.Errorf("data: mask %s has no image; put one at %s or remove the mask",
				filepath.Join(dir, MasksDir, masks[i]), filepath.Join(dir, TrainDir, masks[i]))
		}
	}
	return nil
}

// checkSizes is told the size of each file in turn.
func (d *Dataset) checkSizes(file string, width, height int, opt *Options) error {
	multiple := opt.Multiple
	if multiple == 0 {
		multiple = 32
	}
	if d.Width == 0 {
		d.Width, d.Height = width, height
		if width%multiple != 0 || height%multiple != 0 {
			return fmt.Errorf("data: %s is %dx%d; width and height must be multiples of %d, prepare with another -size",
				filepath.Join(d.Dir, file), width, height, multiple)
		}
	}
	if width != d.Width || height != d.Height {
		return fmt.Errorf("data: %s is %dx%d, but %s is %dx%d; all must have one size, prepare them together",
			filepath.Join(d.Dir, file), width, height, d.Train[0].Image, d.Width, d.Height)
	}
	return nil
}

// checkMaskValues returns an error for the first mask with a value that the task
// does not know.
func (d *Dataset) checkMaskValues(masks []string) error {
	for _, m := range masks {
		e := d.index[MasksDir+"/"+m]
		if err := d.Task.checkValues(&e.values); err != nil {
			return fmt.Errorf("data: %s: %w", filepath.Join(d.Dir, MasksDir, m), err)
		}
	}
	return nil
}

// checkColours notes which images lose their colours.
func (d *Dataset) checkColours(files []string) {
	var coloured []string
	for _, f := range files {
		if !strings.HasPrefix(f, MasksDir) && d.index[f].channels > 1 {
			coloured = append(coloured, f)
		}
	}
	if n := len(coloured); n > 0 && d.Task.Channels == 1 {
		d.Warnings = append(d.Warnings, fmt.Sprintf("%s, which become grey, as the task has one channel: %s", words.Count(n, "image has colours", "images have colours"), words.Some(coloured, 5)))
	}
}

func (d *Dataset) findDuplicates(files []string) {
	groups := map[string][]string{}
	for _, f := range files {
		if !strings.HasPrefix(f, MasksDir) {
			h := d.index[f].hash
			groups[h] = append(groups[h], f)
		}
	}
	for _, g := range groups {
		if len(g) > 1 {
			slices.Sort(g)
			d.Duplicates = append(d.Duplicates, g)
		}
	}
	slices.SortFunc(d.Duplicates, slices.Compare)
}

// Statistics say what the values of a set of prepared images are, and how the
// images were made.
type Statistics struct {
	Mean  Values `json:"mean"`  // of all values of the training images, in [0, 1], for each channel
	Std   Values `json:"std"`   // sqrt(E[x²] - mean²) of the same
	Films int    `json:"films"` // training images
	Size  int    `json:"size"`  // width and height in pixels
	Made  string `json:"made"`  // by what chain, in words

	Preparation *Preparation `json:"preparation,omitempty"` // the chain itself
}

// CheckMoments returns an error if mean and standard deviation, one of each for
// each channel, are not those of values in [0, 1].
func CheckMoments(mean, std Values) error {
	if len(mean) == 0 || len(mean) != len(std) {
		return fmt.Errorf("%d means and %d standard deviations; wanted one of each for each channel", len(mean), len(std))
	}
	for c := range mean {
		if !(mean[c] >= 0 && mean[c] <= 1 && std[c] > 0 && std[c] <= 1) {
			return fmt.Errorf("mean %v and standard deviation %v; wanted those of values in [0, 1], so divide those of bytes by 255", mean[c], std[c])
		}
	}
	return nil
}

// ReadStatistics reads a statistics file. It fails if there is none, or if its
// numbers are not those of values in [0, 1]; what else it says comes back all the
// same.
func ReadStatistics(path string) (Statistics, error) {
	var s Statistics
	b, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("data: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return Statistics{}, fmt.Errorf("data: %s: %w; delete it, or prepare the folder again", path, err)
	}
	if err := CheckMoments(s.Mean, s.Std); err != nil {
		return s, fmt.Errorf("data: %s: %w; write it anew with prepare -check -renew-statistics, or delete it", path, err)
	}
	return s, nil
}

// WriteStatistics writes a statistics file, whole or not at all. It fails if
// ReadStatistics would refuse it.
func WriteStatistics(path string, s Statistics) error {
	if err := CheckMoments(s.Mean, s.Std); err != nil {
		return fmt.Errorf("data: %s is not written: %w", path, err)
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if err := atomicfile.WriteFile(path, append(b, '\n')); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}

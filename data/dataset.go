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

// Names in the folder of a dataset. The first three are the names of the
// notebook; Prepare and Open write the others.
const (
	TrainDir = "train" // images NAME.png
	MasksDir = "masks" // a mask NAME.png for each training image
	TestDir  = "test"  // images without masks

	StatisticsFile = "statistics.json" // see Statistics
	FilmsFile      = "films.csv"       // the source and the patient of each image
	ClassesFile    = "classes.txt"     // names of the classes, see ReadClasses
	IndexFile      = "index.csv"       // facts that Open found; may be deleted at any time

	// UnfinishedFile is in a folder while it is only partly prepared.
	UnfinishedFile = "prepare.unfinished"
)

// Options are the options of Open; nil means all defaults.
type Options struct {
	// Task says what the images show. Without classes, Open takes them from the
	// classes file, or, if there is none, takes a background and a mask. 0
	// channels mean 1.
	Task Task

	// Multiple is the number of which width and height must be multiples. 0
	// means 32, the stride of a five-stage encoder; 1 allows any size.
	Multiple int

	// NoStatistics leaves the statistics file unread, so that a wrong one is no
	// error.
	NoStatistics bool

	// NoIndex neither reads nor writes the index file.
	NoIndex bool

	// Workers is the number of files decoded at a time; 0 means one per core.
	Workers int
}

// Dataset is a folder of images and masks that were checked: every file can be
// decoded, every training image has a mask, all have one size, and the task
// allows every value of the masks.
type Dataset struct {
	Dir           string
	Task          Task
	Train, Test   []Sample // sorted by Name, byte by byte
	Width, Height int      // pixels of every image and mask

	// Mean and Std are the statistics of the training images' values in [0, 1],
	// for each channel, from the statistics file; nil if there is none.
	Mean, Std Values

	// Preparation says how the images were made; nil if it is not known.
	Preparation *Preparation

	// Warnings say what is lost when the images are loaded.
	Warnings []string

	// Duplicates are the groups of images whose pixels are all the same, as
	// paths inside Dir ("train/a.png"), sorted.
	Duplicates [][]string

	index index
	lock  *folderlock.Lock
}

// Close releases the folder. Before that, or before the garbage collector finds the
// Dataset, the folder cannot be prepared again.
func (d *Dataset) Close() error { return d.lock.Unlock() }

// Sample is one image of a dataset.
type Sample struct {
	Name    string // file name without its extension
	Image   string // path
	Mask    string // path; empty in the test set
	Patient string // empty if it is not known

	// Facts from the films file about the film of which the image was made: the
	// place of the film in the image, and its number of different values; zero if
	// they are not known.
	Geometry resize.Geometry
	Levels   int
}

// Load reads the image and the mask. The image has the channels of the task and the
// bits of the file. The mask holds the class of each pixel, row-major; it is nil for
// a sample without a mask.
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

// checkFiles returns an error if the task is wrong or picture files cannot have
// its channels.
func (t Task) checkFiles() error {
	if err := t.Check(); err != nil {
		return err
	}
	if t.Channels != 1 && t.Channels != 3 {
		return fmt.Errorf("data: the task has %d channels; picture files have 1 (grey) or 3 (red, green, blue)", t.Channels)
	}
	return nil
}

// Open reads the folder dir in the notebook's layout: PNG files in train/, masks/
// and, if it exists, test/. Hidden files and files that are not pictures are
// ignored.
//
// The first Open of a folder decodes every file and writes an index. Later
// calls decode only the files whose size or time differs from the index.
//
// An error names one file and says what to do. It is returned if the folder does
// not exist, train/ is empty, an image has no mask or a mask no image, sizes differ
// or are not multiples of Options.Multiple, a picture is not PNG or is broken, or a
// mask has values that the task does not allow.
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
		_ = lock.Unlock() // the error that is returned says more
		return nil, err
	}
	d.lock = lock
	return d, nil
}

func open(dir string, opt *Options) (*Dataset, error) {
	d := &Dataset{Dir: dir, Task: opt.Task}
	if _, err := os.Stat(filepath.Join(dir, UnfinishedFile)); err == nil {
		return nil, fmt.Errorf("data: %s is only partly prepared; run the command that makes it again, it continues where it stopped", dir)
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
	// Images come before masks, so that the error about a wrong size names the
	// image.
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

// completeGeometry sets the size of the image in each Geometry whose film size
// is known.
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

// completeTask takes from the folder what the options leave open.
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

// isDir returns a clear error if path is not a folder.
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
				return nil, fmt.Errorf("data: %s and %s have the same name; remove one of them", filepath.Join(dir, sub, other), filepath.Join(dir, sub, name))
			}
			stems[stem] = name
			names = append(names, name)
		case ".jpg", ".jpeg", ".dcm", ".tif", ".tiff", ".bmp", ".gif", ".webp":
			return nil, fmt.Errorf("data: %s is not a PNG file; make the folder with examples/prepare", filepath.Join(dir, sub, name))
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return strings.Compare(strings.TrimSuffix(a, filepath.Ext(a)), strings.TrimSuffix(b, filepath.Ext(b)))
	})
	return names, nil
}

// sameNames returns an error that names the first image without a mask or mask
// without an image.
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
			return fmt.Errorf("data: %s has no mask; put one at %s (all black if there is nothing to find) or remove the image",
				filepath.Join(dir, TrainDir, train[i]), filepath.Join(dir, MasksDir, train[i]))
		default:
			return fmt.Errorf("data: mask %s has no image; put one at %s or remove the mask",
				filepath.Join(dir, MasksDir, masks[i]), filepath.Join(dir, TrainDir, masks[i]))
		}
	}
	return nil
}

// checkSizes returns an error if the size of a file is wrong. It is called for
// each file in turn.
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
// does not allow.
func (d *Dataset) checkMaskValues(masks []string) error {
	for _, m := range masks {
		e := d.index[MasksDir+"/"+m]
		if err := d.Task.checkValues(&e.values); err != nil {
			return fmt.Errorf("data: %s: %w", filepath.Join(d.Dir, MasksDir, m), err)
		}
	}
	return nil
}

// checkColours adds a warning that names the images that lose their colours.
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

// Statistics holds the mean and standard deviation of a set of prepared images,
// and how the images were made.
type Statistics struct {
	Mean  Values `json:"mean"`  // of all values of the training images, in [0, 1], for each channel
	Std   Values `json:"std"`   // sqrt(E[x²] - mean²) of the same values
	Films int    `json:"films"` // number of training images
	Size  int    `json:"size"`  // width and height in pixels
	Made  string `json:"made"`  // how the images were made, in words

	Preparation *Preparation `json:"preparation,omitempty"` // how the images were made
}

// CheckMoments returns an error if these cannot be the mean and standard
// deviation, per channel, of values in [0, 1].
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

// ReadStatistics reads a statistics file. It returns an error if there is none,
// or if its numbers are not possible for values in [0, 1]; in the second case it
// also returns the content of the file.
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
		return s, fmt.Errorf("data: %s: %w; write it again with prepare -check -renew-statistics, or delete it", path, err)
	}
	return s, nil
}

// WriteStatistics writes a statistics file, completely or not at all. It
// returns an error if ReadStatistics would return one.
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

package data

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Names inside a dataset's folder. The first three are the notebook's; the rest
// is what Prepare and Open leave beside them.
const (
	TrainDir = "train" // images, NAME.png
	MasksDir = "masks" // a mask for each of them, NAME.png
	TestDir  = "test"  // images without masks

	StatisticsFile = "statistics.json" // see Statistics
	FilmsFile      = "films.csv"       // where each image came from, its patient
	IndexFile      = "index.csv"       // what Open has seen; may be deleted at any time
)

// Options of Open; nil means all defaults.
type Options struct {
	// Multiple is what width and height must be multiples of; 0 means 32, the
	// stride of a five-stage encoder, and 1 allows any size.
	Multiple int

	// NoIndex neither reads nor writes the index file.
	NoIndex bool

	// Workers is the number of files decoded at a time; 0 means one per core.
	Workers int
}

// Dataset is a folder of images and masks that have been looked at: every file
// decodes, every image has its mask, and all have one size.
type Dataset struct {
	Dir           string
	Train, Test   []Sample // sorted by Name, byte by byte
	Width, Height int      // pixels of every image and mask

	// Mean and Std are those of the training images' values in [0, 1] as the
	// statistics file has them; both are 0 where there is none.
	Mean, Std float64

	// Duplicates are the groups of images whose pixels are all the same, as
	// paths inside Dir ("train/a.png"), sorted.
	Duplicates [][]string

	index index
}

// Sample is one image of a dataset.
type Sample struct {
	Name    string // file name without its extension
	Image   string // path
	Mask    string // path; empty in the test set
	Patient string // empty where it is not known
}

// Load reads the image as grey values, and the mask as 0 and 255; the mask is nil
// for a sample without one. As in the notebook only the mask value 255 is mask:
// the grey edge that resizing leaves becomes 0.
func (s Sample) Load() (img, mask *image.Gray, err error) {
	if img, err = OpenImage(s.Image, nil); err != nil {
		return nil, nil, err
	}
	if s.Mask == "" {
		return img, nil, nil
	}
	if mask, err = OpenImage(s.Mask, nil); err != nil {
		return nil, nil, err
	}
	if mask.Rect != img.Rect {
		return nil, nil, fmt.Errorf("data: %s is %s, but %s is %s; prepare the folder again", s.Mask, size(mask), s.Image, size(img))
	}
	for i, v := range mask.Pix {
		if v != 255 {
			mask.Pix[i] = 0
		}
	}
	return img, mask, nil
}

func size(img *image.Gray) string { return fmt.Sprintf("%dx%d", img.Rect.Dx(), img.Rect.Dy()) }

// Open reads the folder dir in the notebook's layout: train/, masks/ and, if there
// is one, test/, all of PNG files. Hidden files and files that are no pictures
// are passed over.
//
// The first Open of a folder decodes every file and writes an index; later ones
// decode only what has another size or time than the index says.
//
// The error names one file and what to do: no such folder, nothing in train/, an
// image without a mask or the reverse, another size than the others, a size that
// is no multiple of Options.Multiple, a picture that is no PNG or is broken, masks
// of 0 and 1.
func Open(dir string, opt *Options) (*Dataset, error) {
	if opt == nil {
		opt = &Options{}
	}
	d := &Dataset{Dir: dir}
	if err := isDir(dir, "make one with examples/prepare, or with examples/phantom first"); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, unfinishedFile)); err == nil {
		return nil, fmt.Errorf("data: %s is only partly prepared; run the command that makes it again, it goes on where it was", dir)
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

	patients, err := readPatients(filepath.Join(dir, FilmsFile))
	if err != nil {
		return nil, err
	}
	sample := func(split, file string) Sample {
		name := strings.TrimSuffix(file, filepath.Ext(file))
		return Sample{
			Name:    name,
			Image:   filepath.Join(dir, split, file),
			Patient: patients[split+"/"+name],
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
	d.findDuplicates(files)

	st, err := ReadStatistics(filepath.Join(dir, StatisticsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	d.Mean, d.Std = st.Mean, st.Std
	return d, nil
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

// checkMaskValues refuses a folder whose masks are drawn with another value than
// 255: to the notebook's rule all of them would be empty.
func (d *Dataset) checkMaskValues(masks []string) error {
	odd := ""
	for _, m := range masks {
		e := d.index[MasksDir+"/"+m]
		if e.white > 0 {
			return nil
		}
		if e.max == 1 && odd == "" {
			odd = m
		}
	}
	if odd != "" {
		return fmt.Errorf("data: %s has values 0 and 1, wanted 0 and 255; multiply the masks by 255 or let examples/prepare read them",
			filepath.Join(d.Dir, MasksDir, odd))
	}
	return nil
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
	Mean  float64 `json:"mean"`  // of all values of the training images, in [0, 1]
	Std   float64 `json:"std"`   // sqrt(E[x²] - mean²) of the same
	Films int     `json:"films"` // training images
	Size  int     `json:"size"`  // width and height in pixels
	Made  string  `json:"made"`  // by what chain, in words
}

// ReadStatistics reads a statistics file. It fails if there is none, or if its
// numbers are not those of grey values in [0, 1].
func ReadStatistics(path string) (Statistics, error) {
	var s Statistics
	b, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("data: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return Statistics{}, fmt.Errorf("data: %s: %w; delete it, or prepare the folder again", path, err)
	}
	if !(s.Mean >= 0 && s.Mean <= 1 && s.Std > 0 && s.Std <= 1) {
		return Statistics{}, fmt.Errorf("data: %s: mean %v and standard deviation %v are not those of values in [0, 1]; delete it, or prepare the folder again", path, s.Mean, s.Std)
	}
	return s, nil
}

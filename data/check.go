package data

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/data/folds"
	"github.com/hcunet/hcunet/data/picture"
)

// CheckOptions are the options of Check; nil means all defaults.
type CheckOptions struct {
	Folds   int    // number of folds of the training; 0 means 4
	Seed    uint32 // seed of the folds; 0 means folds.KernelSeed
	Workers int    // images at a time; 0 means one per core
}

// Report holds the result of Check. Areas are pixels of all classes but the
// background.
type Report struct {
	Dir                     string
	Task                    Task
	Train, Test             int
	Width, Height           int
	Positive                int    // training images whose mask is not empty
	With                    []int  // training images that show a class, for each class
	Areas                   []int  // mask areas of the positive images, ascending
	Mean, Std               Values // of all values of the training images in [0, 1], per channel
	StoredMean, StoredStd   Values // from the statistics file; nil without one
	Warnings                []string
	Patients, PatientsOfTwo int // known patients in train; how many of them have two images or more

	preparation *Preparation // from the statistics file, even if its numbers are wrong

	// Findings are the suspicious cases, the most serious kind first.
	Findings []Finding
}

// Finding is one suspicious case.
type Finding struct {
	Kind FindingKind
	File string // path inside the folder, such as "masks/a.png"; empty if it concerns the whole set
	Text string
}

// FindingKind is the kind of a finding. Lower kinds are more serious.
type FindingKind int

// Kinds of findings.
const (
	PatientInTest    FindingKind = iota // the same patient in train and test
	DuplicateLabels                     // the same picture with two different masks
	DuplicateInTest                     // the same picture in train and test
	DuplicateImage                      // the same picture twice
	PatientInFolds                      // the notebook's folds hold a patient on both sides
	Constant                            // an image of nearly one grey value
	MaskOutside                         // a mask outside the film, on flat black or white
	MaskHuge                            // a mask of more than half the image
	MaskTiny                            // a mask of less than 0.02 % of the image
	MaskGrey                            // a mask with grey pixels but no pixel of 255; WhiteOnly reads it as empty
	FewLevels                           // an image with fewer than 32 different values
	StatisticsWrong                     // the statistics file cannot be used
	StatisticsDiffer                    // the statistics file belongs to other images
	NoPatients                          // the patients of the images are not known
)

var findingNames = [...]string{
	"patient in train and test", "same picture, different masks", "same picture in train and test", "same picture twice",
	"patient in two folds", "image nearly constant", "mask outside the film", "mask huge", "mask tiny", "mask without white",
	"few grey levels", "statistics wrong", "statistics differ", "patients unknown",
}

func (k FindingKind) String() string { return findingNames[k] }

// Limits beyond which an image or a mask is suspicious.
const (
	constantStd   = 0.02   // standard deviation of values in [0, 1]; after CLAHE that of any film is far higher
	flatShare     = 0.25   // share of the mask's pixels whose neighbourhood has one value
	hugeShare     = 0.5    // share of the image; a lung covers a quarter
	tinyShare     = 0.0002 // share of the image: 13 pixels at 256x256
	statisticsGap = 0.01   // truncation to bytes changes the mean by only 0.002

	// FewestLevels is the number of different values below which an image is
	// reported: such a film has lost its contrast in some earlier step.
	FewestLevels = 32
)

// look holds the facts about one image and its mask.
type look struct {
	sum, sumSq []float64 // of values in [0, 1], for each channel
	levels     int
	area       int
	with       []bool // the classes in the mask
	flat       int    // pixels of the mask with flat surroundings
	grey       int    // pixels that WhiteOnly turns into background
	err        error
}

// Check decodes every image of a dataset and reports counts, areas, statistics and
// suspicious cases.
func Check(d *Dataset, opt *CheckOptions) (*Report, error) {
	if opt == nil {
		opt = &CheckOptions{}
	}
	r := &Report{Dir: d.Dir, Task: d.Task, Train: len(d.Train), Test: len(d.Test), Width: d.Width, Height: d.Height,
		Warnings: d.Warnings, With: make([]int, len(d.Task.Classes))}
	samples := slices.Concat(d.Train, d.Test)
	looks := make([]look, len(samples))
	parallel(len(samples), opt.Workers, func(i int) { looks[i] = lookAt(samples[i], d.Task) })
	for _, l := range looks {
		if l.err != nil {
			return nil, l.err
		}
	}
	n := float64(d.Width * d.Height)
	sum, sumSq := make([]float64, d.Task.Channels), make([]float64, d.Task.Channels)
	for i, l := range looks {
		s, test := samples[i], i >= len(d.Train)
		constant := true
		for c := range sum {
			constant = constant && deviation(l.sum[c], l.sumSq[c], n) < constantStd
		}
		if constant {
			r.find(Constant, inside(s, test), "standard deviation below %.2f of [0, 1]", constantStd)
		}
		if s.Levels > 0 && s.Levels < FewestLevels {
			r.find(FewLevels, inside(s, test), "its film has %d different values", s.Levels)
		} else if l.levels < FewestLevels {
			r.find(FewLevels, inside(s, test), "%d different values", l.levels)
		}
		if test {
			continue
		}
		for c := range sum {
			sum[c] += l.sum[c]
			sumSq[c] += l.sumSq[c]
		}
		r.checkMask(s, l, n)
	}
	slices.Sort(r.Areas)
	n *= float64(r.Train)
	for c := range sum {
		r.Mean = append(r.Mean, sum[c]/n)
		r.Std = append(r.Std, deviation(sum[c], sumSq[c], n))
	}
	r.checkStatistics(d)
	r.checkDuplicates(d)
	if err := r.checkPatients(d, cmp.Or(opt.Folds, 4), cmp.Or(opt.Seed, folds.KernelSeed)); err != nil {
		return nil, err
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.File, b.File))
	})
	return r, nil
}

// deviation returns the standard deviation of n values.
func deviation(sum, sumSq, n float64) float64 {
	mean := sum / n
	return math.Sqrt(max(sumSq/n-mean*mean, 0))
}

// checkStatistics compares the statistics file with the images, even if Open
// did not read the file.
func (r *Report) checkStatistics(d *Dataset) {
	st, err := ReadStatistics(filepath.Join(d.Dir, StatisticsFile))
	r.preparation = st.Preparation
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err == nil && len(st.Mean) != len(r.Mean):
		err = fmt.Errorf("it has %d channels, the images have %d", len(st.Mean), len(r.Mean))
	}
	if err != nil {
		r.find(StatisticsWrong, StatisticsFile, "%v", bare(err))
		return
	}
	r.StoredMean, r.StoredStd = st.Mean, st.Std
	for c := range r.Mean {
		if math.Abs(r.Mean[c]-st.Mean[c]) > statisticsGap || math.Abs(r.Std[c]-st.Std[c]) > statisticsGap {
			r.find(StatisticsDiffer, StatisticsFile, "it says mean %.3f, standard deviation %.3f; the images have %.3f, %.3f", st.Mean[c], st.Std[c], r.Mean[c], r.Std[c])
		}
	}
}

// Statistics returns the content that the statistics file of these images
// should have.
func (r *Report) Statistics() Statistics {
	st := Statistics{Mean: r.Mean, Std: r.Std, Films: r.Train, Size: r.Width, Made: "computed from the images of the folder"}
	if r.preparation != nil {
		p := *r.preparation
		p.Mean, p.Std = r.Mean, r.Std
		st.Preparation = &p
	}
	return st
}

// inside returns the path of the image inside the folder.
func inside(s Sample, test bool) string {
	if test {
		return TestDir + "/" + s.Name + ".png"
	}
	return TrainDir + "/" + s.Name + ".png"
}

func (r *Report) find(kind FindingKind, file, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{kind, file, fmt.Sprintf(format, args...)})
}

func lookAt(s Sample, task Task) (l look) {
	img, targets, err := s.Load(task)
	if err != nil {
		return look{err: err}
	}
	n := img.Width * img.Height
	for c := range img.Channels {
		var sum, sumSq float64
		for i := range n {
			v := img.At(c*n + i)
			sum += v
			sumSq += v * v
		}
		l.sum, l.sumSq = append(l.sum, sum), append(l.sumSq, sumSq)
	}
	l.levels = levels(img)
	if targets == nil {
		return l
	}
	l.with = make([]bool, len(task.Classes))
	for i, class := range targets {
		if class == 0 || class == Ignored {
			continue
		}
		l.with[class] = true
		l.area++
		if flat(img, i%img.Width, i/img.Width) {
			l.flat++
		}
	}
	if task.Masks == WhiteOnly && l.area == 0 {
		mask, err := picture.OpenMask(s.Mask, nil)
		if err != nil {
			return look{err: err}
		}
		l.grey = len(mask.Pix) - bytes.Count(mask.Pix, []byte{0})
	}
	return l
}

// flat returns whether a pixel and its neighbours have one value: film has
// grain, padding has none.
func flat(img *picture.Image, x, y int) bool {
	w, h := img.Width, img.Height
	v := img.At(y*w + x)
	for j := max(y-1, 0); j <= min(y+1, h-1); j++ {
		for i := max(x-1, 0); i <= min(x+1, w-1); i++ {
			if img.At(j*w+i) != v {
				return false
			}
		}
	}
	return true
}

func (r *Report) checkMask(s Sample, l look, n float64) {
	file := MasksDir + "/" + s.Name + ".png"
	if l.area == 0 {
		if l.grey > 0 {
			r.find(MaskGrey, file, "%d grey pixels, none of 255", l.grey)
		}
		return
	}
	r.Positive++
	for class, there := range l.with {
		if there {
			r.With[class]++
		}
	}
	r.Areas = append(r.Areas, l.area)
	share := float64(l.area) / n
	switch {
	case share > hugeShare:
		r.find(MaskHuge, file, "%.0f %% of the image", 100*share)
	case share < tinyShare:
		r.find(MaskTiny, file, "%d pixels", l.area)
	}
	if f := float64(l.flat) / float64(l.area); f > flatShare {
		r.find(MaskOutside, file, "%.0f %% of it lies where the image is flat", 100*f)
	}
}

func (r *Report) checkDuplicates(d *Dataset) {
	for _, group := range d.Duplicates {
		kind := DuplicateImage
		masks := map[string]bool{}
		tests := 0
		for _, f := range group {
			if name, ok := strings.CutPrefix(f, TrainDir); ok {
				masks[d.index[MasksDir+name].hash] = true
			} else {
				tests++
			}
		}
		switch {
		case len(masks) > 1:
			kind = DuplicateLabels
		case tests > 0 && len(masks) > 0:
			kind = DuplicateInTest
		}
		r.find(kind, group[0], "= %s", strings.Join(group[1:], " = "))
	}
}

func (r *Report) checkPatients(d *Dataset, k int, seed uint32) error {
	of := map[string][]int{}
	for i, s := range d.Train {
		if s.Patient != "" {
			of[s.Patient] = append(of[s.Patient], i)
		}
	}
	r.Patients = len(of)
	if len(of) == 0 {
		r.find(NoPatients, "", "a patient may be in two folds; name the patients with the -patients flag of prepare")
	}
	for _, s := range d.Test {
		if in := of[s.Patient]; len(in) > 0 {
			r.find(PatientInTest, inside(s, true), "patient %s is in train too: %s", s.Patient, d.Train[in[0]].Name)
		}
	}
	if k < 2 || len(d.Train) < k {
		return nil
	}
	folds, err := folds.KFold(len(d.Train), k, seed)
	if err != nil {
		return err
	}
	foldOf := make([]int, len(d.Train))
	for f, items := range folds {
		for _, i := range items {
			foldOf[i] = f
		}
	}
	for patient, items := range of {
		if len(items) < 2 {
			continue
		}
		r.PatientsOfTwo++
		in := map[int]bool{}
		for _, i := range items {
			in[foldOf[i]] = true
		}
		if len(in) > 1 {
			r.find(PatientInFolds, inside(d.Train[items[0]], false), "patient %s has %d images in %d of %d folds; use folds by patient", patient, len(items), len(in), k)
		}
	}
	return nil
}

// WriteTo writes the report as text.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Dir)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "  %-10s  %s\n", what, fmt.Sprintf(format, args...))
	}
	line("images", "%d training, %d test, all %dx%d", r.Train, r.Test, r.Width, r.Height)
	rate := float64(r.Positive) / float64(r.Train)
	line("positive", "%d of %d (%.1f %%); predicting nothing at all scores Dice %.3f", r.Positive, r.Train, 100*rate, 1-rate)
	if n := len(r.Areas); n > 0 {
		share := func(q float64) float64 {
			return 100 * float64(r.Areas[int(math.Round(q*float64(n-1)))]) / float64(r.Width*r.Height)
		}
		line("mask area", "%.2f / %.2f / %.2f / %.2f / %.2f %% of the image (least, quartiles, most)", share(0), share(0.25), share(0.5), share(0.75), share(1))
	}
	if len(r.Task.Classes) > 2 {
		for class, n := range r.With[1:] {
			line("", "%s in %d of %d", r.Task.Classes[1+class], n, r.Train)
		}
	}
	line("values", "mean %.4f, standard deviation %.4f", r.Mean, r.Std)
	if r.StoredStd != nil {
		line("", "%s: mean %.4f, standard deviation %.4f", StatisticsFile, r.StoredMean, r.StoredStd)
	}
	for _, w := range r.Warnings {
		line("warning", "%s", w)
	}
	if r.Patients > 0 {
		line("patients", "%d known, %d with two images or more", r.Patients, r.PatientsOfTwo)
	}
	if len(r.Findings) == 0 {
		line("findings", "none")
	}
	for i := 0; i < len(r.Findings); {
		j := i
		for j < len(r.Findings) && r.Findings[j].Kind == r.Findings[i].Kind {
			j++
		}
		fmt.Fprintf(&b, "  %s: %d\n", r.Findings[i].Kind, j-i)
		for _, f := range r.Findings[i:min(j, i+10)] {
			fmt.Fprintf(&b, "    %s\n", strings.TrimSpace(f.File+"  "+f.Text))
		}
		if j-i > 10 {
			fmt.Fprintf(&b, "    and %d more\n", j-i-10)
		}
		i = j
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

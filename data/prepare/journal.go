package prepare

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/clahe"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/internal/folderlock"
	"github.com/hcunet/hcunet/internal/words"
)

// journalFile has a line for each finished film. While Run works it has the name
// data.UnfinishedFile, so that no program takes the folder for complete.
const journalFile = "prepare.journal"

// record is a line of the journal.
type record struct {
	Key    string // "train/NAME"
	Source string // path of the film
	Stamp  string // of the film and its label when they were read, to see changes
	Label  string `json:",omitempty"`

	Width, Height int   // of the film
	MaskPixels    int   `json:",omitempty"` // of the mask, at the film's size
	Left          int   `json:",omitempty"` // pixels in the written mask
	Levels        int   // number of different values of the film
	ImageBytes    int64 // of the written files
	MaskBytes     int64 `json:",omitempty"`
	Sums          []clahe.Stats
	Warnings      []string `json:",omitempty"`

	Patient string `json:",omitempty"`
	Age     string `json:",omitempty"`
	Sex     string `json:",omitempty"`
	View    string `json:",omitempty"`
}

// settings is the first line of the journal: the options of the run.
type settings struct {
	Prepare     int // version of the format
	Task        data.Task
	Preparation data.Preparation
	RLESize     int
}

func settingsOf(opt *Options) settings { return settings{2, opt.Task, opt.Preparation, opt.RLESize} }

type journal struct {
	dir      string
	done     map[string]*record // by key
	complete bool               // the earlier run was complete

	lock *folderlock.Lock
	mu   sync.Mutex
	file *os.File
}

// openJournal reads which films an earlier run has finished, and changes nothing.
// It returns an error if the folder has files that do not belong to this run.
func openJournal(opt *Options, films []*film) (*journal, error) {
	j := &journal{dir: opt.Out, done: map[string]*record{}}
	b, err := os.ReadFile(filepath.Join(j.dir, data.UnfinishedFile))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile(filepath.Join(j.dir, journalFile))
		j.complete = err == nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return j, j.refuseForeign()
	} else if err != nil {
		return nil, fmt.Errorf("prepare: output folder: %w", err)
	}

	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	var was settings
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &was) != nil || was.Prepare < settingsOf(opt).Prepare {
		return nil, fmt.Errorf("prepare: %s: the journal of an earlier run is broken, or of an earlier version; remove the folder and start again", j.dir)
	}
	if now := settingsOf(opt); !reflect.DeepEqual(was, now) {
		return nil, fmt.Errorf("prepare: %s was prepared with other options (%s); choose another output folder, or remove this one", j.dir, differ(was, now))
	}
	byKey := map[string]*film{}
	for _, f := range films {
		byKey[f.key()] = f
	}
	var foreign []string
	for lines.Scan() {
		var r record
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue // a line cut off by a kill or a full disk
		}
		f := byKey[r.Key]
		if f == nil {
			foreign = append(foreign, r.Key)
			continue
		}
		if f.path == r.Source && f.stamp == r.Stamp && f.label.stamp == r.Label && j.intact(&r) {
			j.done[r.Key] = &r
		} else {
			delete(j.done, r.Key)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("prepare: %s: the journal of an earlier run is broken (%w); remove the folder and start again", j.dir, err)
	}
	if len(foreign) > 0 {
		slices.Sort(foreign)
		return nil, fmt.Errorf("prepare: %s holds films that are not among the given ones: %s; give all films at once, choose another output folder, or remove this one",
			j.dir, words.Some(slices.Compact(foreign), 3))
	}
	return j, nil
}

// refuseForeign returns an error if the output folder holds images that Run did
// not make.
func (j *journal) refuseForeign() error {
	for _, sub := range []string{data.TrainDir, data.MasksDir, data.TestDir} {
		entries, err := os.ReadDir(filepath.Join(j.dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("prepare: output folder: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("prepare: %s holds files that prepare did not make, such as %s; choose another output folder", j.dir, filepath.Join(sub, entries[0].Name()))
		}
	}
	return nil
}

// intact returns whether the files of a record exist with the right sizes.
func (j *journal) intact(r *record) bool {
	_, name, _ := strings.Cut(r.Key, "/")
	if _, err := data.FileName(name); err != nil {
		return false
	}
	is := func(sub string, size int64) bool {
		st, err := os.Stat(filepath.Join(j.dir, sub, name+".png"))
		return err == nil && st.Size() == size
	}
	split, _, _ := strings.Cut(r.Key, "/")
	return is(split, r.ImageBytes) && (split != data.TrainDir || is(data.MasksDir, r.MaskBytes))
}

func differ(was, now settings) string {
	a, b := describe(was), describe(now)
	var d []string
	for i := range a {
		if a[i] != b[i] {
			d = append(d, fmt.Sprintf("%s, now %s", a[i], b[i]))
		}
	}
	return strings.Join(d, "; ")
}

func describe(s settings) []string {
	p, t := s.Preparation, s.Task
	return []string{
		fmt.Sprintf("format %d", s.Prepare), fmt.Sprintf("size %d", p.Size), fmt.Sprintf("fit %s", p.Fit), fmt.Sprintf("mask scaling %s", p.MaskScaling),
		fmt.Sprintf("CLAHE %t", p.CLAHE), fmt.Sprintf("VOI %t", p.VOI), fmt.Sprintf("16-bit stretch %t", p.Stretch16), fmt.Sprintf("%d bits", p.Bits),
		fmt.Sprintf("classes %s", strings.Join(t.Classes, ", ")), fmt.Sprintf("%d channels", t.Channels), fmt.Sprintf("ignore %t", t.Ignore),
		fmt.Sprintf("run-length size %d", s.RLESize),
	}
}

// take makes the folder and locks it until close.
func (j *journal) take() error {
	err := os.MkdirAll(j.dir, 0o777)
	if err == nil {
		j.lock, err = folderlock.Exclusive(j.dir)
	}
	if errors.Is(err, folderlock.ErrBusy) {
		return fmt.Errorf("prepare: %w, preparing it or training on it; wait for it to end, or choose another output folder", err)
	} else if err != nil {
		return fmt.Errorf("prepare: output folder: %w", err)
	}
	return nil
}

var temporary = regexp.MustCompile(`^\..*\.[0-9a-f]+\.tmp$`)

// begin prepares the folder for writing.
func (j *journal) begin(opt *Options) error {
	if err := j.take(); err != nil {
		return err
	}
	subs := []string{".", data.TrainDir, data.MasksDir}
	if len(opt.Test) > 0 {
		subs = append(subs, data.TestDir)
	}
	for _, sub := range subs {
		dir := filepath.Join(j.dir, sub)
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("prepare: output folder: %w", err)
		}
		// Temporary files of a run that was killed.
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("prepare: output folder: %w", err)
		}
		for _, e := range entries {
			if temporary.MatchString(e.Name()) {
				os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
	// The journal is written again with the records that are still valid,
	// without truncated lines and without films that have changed.
	path := filepath.Join(j.dir, data.UnfinishedFile)
	err := atomicfile.Write(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		if err := e.Encode(settingsOf(opt)); err != nil {
			return err
		}
		for _, key := range sortedKeys(j.done) {
			if err := e.Encode(j.done[key]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("prepare: output folder: %w", err)
	}
	for _, old := range []string{journalFile, data.StatisticsFile, data.FilmsFile, data.IndexFile, data.ClassesFile} {
		if err := os.Remove(filepath.Join(j.dir, old)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("prepare: output folder: %w", err)
		}
	}
	if j.file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o666); err != nil {
		return fmt.Errorf("prepare: output folder: %w", err)
	}
	return nil
}

func sortedKeys(m map[string]*record) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// add writes a line. It may be called from several goroutines.
func (j *journal) add(r *record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("prepare: journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("prepare: %w; make room and run again; it continues from here", err)
	}
	j.done[r.Key] = r
	return nil
}

func (j *journal) close() {
	if j.file != nil {
		j.file.Close()
	}
	_ = j.lock.Unlock() // the lock ends with the process in any case
}

// finish writes the statistics, the films file and the index, and gives the
// journal its final name. Values are summed in the order of names, so that the
// sums do not depend on which film was finished first.
func (j *journal) finish(opt *Options, films []*film, sum *Summary) error {
	stats := make([]clahe.Stats, opt.Task.Channels)
	for _, f := range films {
		r := j.done[f.key()]
		if r == nil {
			continue
		}
		for _, w := range r.Warnings {
			sum.Warnings = append(sum.Warnings, r.Source+": "+w)
		}
		if f.split == data.TestDir {
			sum.Test++
			continue
		}
		sum.Train++
		for c := range stats {
			stats[c].Merge(r.Sums[c])
		}
		if r.MaskPixels > 0 {
			sum.Positive++
			if r.Left == 0 {
				sum.Vanished = append(sum.Vanished, f.name)
			}
		}
	}
	if sum.Train+sum.Test == 0 {
		return fmt.Errorf("prepare: none of the %d films could be read; the first error is %s: %w", len(films), sum.Failed[0].Path, sum.Failed[0].Err)
	}
	if sum.Train > 0 {
		sum.Statistics = opt.statistics(stats, sum)
	}
	if j.file == nil {
		return nil // everything was there before
	}
	if sum.Statistics.Mean != nil {
		if err := data.WriteStatistics(filepath.Join(j.dir, data.StatisticsFile), sum.Statistics); err != nil {
			return err
		}
	}
	if err := j.writeClasses(opt); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := j.writeFilms(opt, films); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := os.Rename(filepath.Join(j.dir, data.UnfinishedFile), filepath.Join(j.dir, journalFile)); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return nil
}

// statistics returns the statistics of the training images. If all values are
// equal, they cannot be used, and sum gets a warning.
func (opt *Options) statistics(stats []clahe.Stats, sum *Summary) data.Statistics {
	p := opt.Preparation
	st := data.Statistics{Films: sum.Train, Size: p.Size, Made: opt.made(), Preparation: &p}
	for _, s := range stats {
		p.Mean, p.Std = append(p.Mean, s.Mean()), append(p.Std, s.Std())
	}
	if err := data.CheckMoments(p.Mean, p.Std); err != nil {
		sum.Warnings = append(sum.Warnings, fmt.Sprintf("the images have no statistics to train with: %v", err))
		p.Mean, p.Std = nil, nil
	}
	st.Mean, st.Std = p.Mean, p.Std
	return st
}

// made describes in words how the images were made.
func (opt *Options) made() string {
	p := opt.Preparation
	s := fmt.Sprintf("%s to %dx%d by bilinear interpolation as cv2.resize", map[resize.Fit]string{resize.Stretch: "stretched", resize.Pad: "padded"}[p.Fit], p.Size, p.Size)
	if opt.Task.Channels == 1 {
		s = "grey, " + s
	}
	if !p.CLAHE {
		return s + "; statistics of values in [0, 1]"
	}
	return s + ", CLAHE as skimage equalize_adapthist, bytes truncated; statistics of the values before they became bytes"
}

// writeClasses writes the classes file if class names were given.
func (j *journal) writeClasses(opt *Options) error {
	if !opt.named {
		return nil
	}
	return atomicfile.WriteFile(filepath.Join(j.dir, data.ClassesFile), []byte(strings.Join(opt.Task.Classes, "\n")+"\n"))
}

func (j *journal) writeFilms(opt *Options, films []*film) error {
	return atomicfile.Write(filepath.Join(j.dir, data.FilmsFile), func(w io.Writer) error {
		c := csv.NewWriter(w)
		c.Write([]string{"name", "split", "patient", "age", "sex", "view", "width", "height", "fit", "levels", "mask_pixels", "source"})
		for _, f := range films {
			r := j.done[f.key()]
			if r == nil {
				continue
			}
			mask := ""
			if f.split == data.TrainDir {
				mask = strconv.Itoa(r.MaskPixels)
			}
			c.Write([]string{f.name, f.split, r.Patient, r.Age, r.Sex, r.View, strconv.Itoa(r.Width), strconv.Itoa(r.Height), opt.Preparation.Fit.String(), strconv.Itoa(r.Levels), mask, r.Source})
		}
		c.Flush()
		return c.Error()
	})
}

package data

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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hcunet/hcunet/data/clahe"
	"github.com/hcunet/hcunet/internal/atomicfile"
)

// The journal has a line for each finished film. It is unfinishedFile while
// Prepare works, so that nobody takes a part for the whole, and journalFile
// afterwards.
const (
	journalFile    = "prepare.journal"
	unfinishedFile = "prepare.unfinished"
)

// record is a line of the journal.
type record struct {
	Key    string // "train/NAME"
	Source string // path of the film
	Stamp  string // of the film and of its label when they were read
	Label  string `json:",omitempty"`

	Width, Height int   // of the film
	MaskPixels    int   `json:",omitempty"` // of the mask, at the film's size
	White         int   `json:",omitempty"` // pixels of value 255 in the written mask
	ImageBytes    int64 // of the written files
	MaskBytes     int64 `json:",omitempty"`
	Stats         clahe.Stats

	Patient string `json:",omitempty"`
	Age     string `json:",omitempty"`
	Sex     string `json:",omitempty"`
	View    string `json:",omitempty"`
}

// settings is the journal's first line: what all films have in common.
type settings struct {
	Prepare     int // version of the format
	Size        int
	Fit         Fit
	MaskScaling MaskScaling
	NoCLAHE     bool
	VOI         bool
	Stretch16   bool
	RLESize     int
}

func settingsOf(opt *PrepareOptions) settings {
	return settings{1, opt.Size, opt.Fit, opt.MaskScaling, opt.NoCLAHE, opt.VOI, opt.Stretch16, opt.RLESize}
}

type journal struct {
	dir      string
	done     map[string]*record // by key
	complete bool               // the earlier run came to its end

	mu   sync.Mutex
	file *os.File
}

// openJournal reads what an earlier run into the folder has finished, and changes
// nothing. It refuses a folder whose files are not those of this run.
func openJournal(opt *PrepareOptions, films []*film) (*journal, error) {
	j := &journal{dir: opt.Out, done: map[string]*record{}}
	b, err := os.ReadFile(filepath.Join(j.dir, unfinishedFile))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile(filepath.Join(j.dir, journalFile))
		j.complete = err == nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return j, j.refuseForeign()
	} else if err != nil {
		return nil, fmt.Errorf("data: output folder: %w", err)
	}

	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	var was settings
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &was) != nil {
		return nil, fmt.Errorf("data: %s: the journal of an earlier run is broken; remove the folder and start again", j.dir)
	}
	if now := settingsOf(opt); was != now {
		return nil, fmt.Errorf("data: %s was prepared with other options (%s); choose another output folder, or remove this one", j.dir, differ(was, now))
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
		return nil, fmt.Errorf("data: %s: the journal of an earlier run is broken (%w); remove the folder and start again", j.dir, err)
	}
	if len(foreign) > 0 {
		slices.Sort(foreign)
		return nil, fmt.Errorf("data: %s holds films that are not among the given ones: %s; give all films at once, choose another output folder, or remove this one",
			j.dir, some(slices.Compact(foreign), 3))
	}
	return j, nil
}

// refuseForeign returns an error if the output folder holds images that Prepare
// has not made.
func (j *journal) refuseForeign() error {
	for _, sub := range []string{TrainDir, MasksDir, TestDir} {
		entries, err := os.ReadDir(filepath.Join(j.dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("data: output folder: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("data: %s holds files that prepare has not made, such as %s; choose another output folder", j.dir, filepath.Join(sub, entries[0].Name()))
		}
	}
	return nil
}

// intact says whether the files that the journal tells of are there.
func (j *journal) intact(r *record) bool {
	is := func(sub string, size int64) bool {
		_, name, _ := strings.Cut(r.Key, "/")
		st, err := os.Stat(filepath.Join(j.dir, sub, name+".png"))
		return err == nil && st.Size() == size
	}
	split, _, _ := strings.Cut(r.Key, "/")
	return is(split, r.ImageBytes) && (split != TrainDir || is(MasksDir, r.MaskBytes))
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
	return []string{
		fmt.Sprintf("format %d", s.Prepare), fmt.Sprintf("size %d", s.Size), fmt.Sprintf("fit %s", s.Fit), fmt.Sprintf("mask scaling %s", s.MaskScaling),
		fmt.Sprintf("CLAHE %t", !s.NoCLAHE), fmt.Sprintf("VOI %t", s.VOI), fmt.Sprintf("16-bit stretch %t", s.Stretch16), fmt.Sprintf("run-length size %d", s.RLESize),
	}
}

var temporary = regexp.MustCompile(`^\..*\.[0-9a-f]+\.tmp$`)

// begin makes the folder ready to be written to.
func (j *journal) begin(opt *PrepareOptions) error {
	subs := []string{".", TrainDir, MasksDir}
	if len(opt.Test) > 0 {
		subs = append(subs, TestDir)
	}
	for _, sub := range subs {
		dir := filepath.Join(j.dir, sub)
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("data: output folder: %w", err)
		}
		// What a killed run was writing.
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("data: output folder: %w", err)
		}
		for _, e := range entries {
			if temporary.MatchString(e.Name()) {
				os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
	// The journal is written anew with what still holds: lines cut off and films
	// that have changed are gone from it.
	path := filepath.Join(j.dir, unfinishedFile)
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
		return fmt.Errorf("data: output folder: %w", err)
	}
	for _, old := range []string{journalFile, StatisticsFile, FilmsFile, IndexFile} {
		if err := os.Remove(filepath.Join(j.dir, old)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("data: output folder: %w", err)
		}
	}
	if j.file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o666); err != nil {
		return fmt.Errorf("data: output folder: %w", err)
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
		return fmt.Errorf("data: journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("data: %w; make room and run again, it goes on from here", err)
	}
	j.done[r.Key] = r
	return nil
}

func (j *journal) close() {
	if j.file != nil {
		j.file.Close()
	}
}

// finish writes statistics, films and the index, and gives the journal its final
// name. Sums are taken in the order of names, so that they do not depend on
// which film was ready first.
func (j *journal) finish(opt *PrepareOptions, films []*film, sum *Summary) error {
	var stats clahe.Stats
	for _, f := range films {
		r := j.done[f.key()]
		if r == nil {
			continue
		}
		if f.split == TestDir {
			sum.Test++
			continue
		}
		sum.Train++
		stats.Merge(r.Stats)
		if r.MaskPixels > 0 {
			sum.Positive++
			if r.White == 0 {
				sum.Vanished = append(sum.Vanished, f.name)
			}
		}
	}
	if sum.Train+sum.Test == 0 {
		return fmt.Errorf("data: none of the %d films could be read; the first error is %s: %w", len(films), sum.Failed[0].Path, sum.Failed[0].Err)
	}
	if sum.Train > 0 {
		sum.Statistics = Statistics{Mean: Values{stats.Mean()}, Std: Values{stats.Std()}, Films: sum.Train, Size: opt.Size, Made: opt.made()}
	}
	if j.file == nil {
		return nil // all was there before
	}
	if sum.Train > 0 {
		b, err := json.MarshalIndent(sum.Statistics, "", "  ")
		if err != nil {
			return fmt.Errorf("data: %w", err)
		}
		if err := atomicfile.WriteFile(filepath.Join(j.dir, StatisticsFile), append(b, '\n')); err != nil {
			return fmt.Errorf("data: %w", err)
		}
	}
	if err := j.writeFilms(films); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if err := os.Rename(filepath.Join(j.dir, unfinishedFile), filepath.Join(j.dir, journalFile)); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}

// made says in words by what chain the images came about.
func (opt *PrepareOptions) made() string {
	s := fmt.Sprintf("grey, %s to %dx%d by bilinear interpolation as cv2.resize", opt.Fit, opt.Size, opt.Size)
	if opt.NoCLAHE {
		return s + "; statistics of byte/255"
	}
	return s + ", CLAHE as skimage equalize_adapthist, bytes truncated; statistics of the values before they became bytes"
}

func (j *journal) writeFilms(films []*film) error {
	return atomicfile.Write(filepath.Join(j.dir, FilmsFile), func(w io.Writer) error {
		c := csv.NewWriter(w)
		c.Write([]string{"name", "split", "patient", "age", "sex", "view", "width", "height", "mask_pixels", "source"})
		for _, f := range films {
			r := j.done[f.key()]
			if r == nil {
				continue
			}
			mask := ""
			if f.split == TrainDir {
				mask = strconv.Itoa(r.MaskPixels)
			}
			c.Write([]string{f.name, f.split, r.Patient, r.Age, r.Sex, r.View, strconv.Itoa(r.Width), strconv.Itoa(r.Height), mask, r.Source})
		}
		c.Flush()
		return c.Error()
	})
}

// String returns "stretched" or "padded".
func (f Fit) String() string { return [...]string{"stretched", "padded"}[f] }

// String returns "linear" or "nearest".
func (m MaskScaling) String() string { return [...]string{"linear", "nearest"}[m] }

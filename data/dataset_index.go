package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"golang.org/x/sync/errgroup"
)

// index holds facts about each file of a dataset. The key is the path inside
// the folder, with forward slashes.
type index map[string]entry

// entry holds facts about the pixels of a file, and the size and time that show
// whether the file has changed.
type entry struct {
	bytes, mtime  int64  // of the file; mtime in nanoseconds since 1970
	width, height int    // pixels
	hash          string // of the values, 32 hexadecimal digits

	channels int      // of an image; 1 if all its pixels are grey
	levels   int      // of an image: number of different values
	values   valueSet // of a mask: the values in it
}

// indexHeader also identifies the version of the format: a file with another
// header is ignored.
var indexHeader = []string{"file", "bytes", "mtime_ns", "width", "height", "pixels_sha256_128", "channels", "levels", "mask_values"}

// scan brings the index of a folder up to date for the given files. Files that
// are unchanged keep their entry. Of the others it first reads the headers, and
// it calls check with the size of every file, in the order of files. Then it
// decodes the changed files in parallel.
func scan(dir string, files []string, opt *Options, check func(file string, width, height int, opt *Options) error) (index, error) {
	var old index
	if !opt.NoIndex {
		old = readIndex(filepath.Join(dir, IndexFile))
	}
	now := make(index, len(files))
	var fresh []string
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f))
		st, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("data: %w", err)
		}
		e, ok := old[f]
		if !ok || e.bytes != st.Size() || e.mtime != st.ModTime().UnixNano() {
			e = entry{bytes: st.Size(), mtime: st.ModTime().UnixNano()}
			if e.width, e.height, err = picture.Size(path); err != nil {
				return nil, fmt.Errorf("%w; replace the file or remove it with its counterpart", err)
			}
			fresh = append(fresh, f)
		}
		now[f] = e
		if err := check(f, e.width, e.height, opt); err != nil {
			return nil, err
		}
	}
	if len(fresh) == 0 && len(old) == len(now) {
		return now, nil
	}
	looked, err := lookAtAll(dir, fresh, opt.Workers)
	if err != nil {
		return nil, err
	}
	for i, f := range fresh {
		looked[i].bytes, looked[i].mtime = now[f].bytes, now[f].mtime
		now[f] = looked[i]
	}
	if !opt.NoIndex {
		// In a folder that cannot be written to, the next Open is only slower.
		_ = now.write(filepath.Join(dir, IndexFile))
	}
	return now, nil
}

// lookAtAll decodes the files of dir in parallel. It returns the error of the
// first broken file, in the order of files.
func lookAtAll(dir string, files []string, workers int) ([]entry, error) {
	entries, errs := make([]entry, len(files)), make([]error, len(files))
	parallel(len(files), workers, func(i int) {
		path := filepath.Join(dir, filepath.FromSlash(files[i]))
		if entries[i], errs[i] = lookAtFile(path, strings.HasPrefix(files[i], MasksDir)); errs[i] != nil {
			errs[i] = fmt.Errorf("%w; replace the file or remove it with its counterpart", errs[i])
		}
	})
	return entries, firstError(errs)
}

func lookAtFile(path string, mask bool) (entry, error) {
	if mask {
		m, err := picture.OpenMask(path, nil)
		if err != nil {
			return entry{}, err
		}
		e := entry{width: m.Rect.Dx(), height: m.Rect.Dy(), channels: 1}
		e.hash = pixelHash(m.Pix, "mask", e.width)
		for _, v := range m.Pix {
			e.values[v] = true
		}
		return e, nil
	}
	m, err := picture.Open(path, nil)
	if err != nil {
		return entry{}, err
	}
	e := entry{width: m.Width, height: m.Height, channels: m.Channels, levels: levels(m)}
	if m.Pix16 != nil {
		e.hash = pixelHash(m.Pix16, "16 bits", e.width)
	} else {
		e.hash = pixelHash(m.Pix8, "8 bits", e.width)
	}
	return e, nil
}

// levels returns the number of different values of an image.
func levels(m *picture.Image) (n int) {
	seen := make([]bool, 1<<16)
	note := func(v int) {
		if !seen[v] {
			seen[v] = true
			n++
		}
	}
	for _, v := range m.Pix8 {
		note(int(v))
	}
	for _, v := range m.Pix16 {
		note(int(v))
	}
	return n
}

func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// parallel calls f for 0 to n-1 on several goroutines, one per core if workers is
// 0.
func parallel(n, workers int, f func(i int)) {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var all errgroup.Group
	all.SetLimit(workers)
	for i := range n {
		all.Go(func() error {
			f(i)
			return nil
		})
	}
	all.Wait() // no error
}

// pixelHash returns a hash of the values, kind and shape of an image.
func pixelHash[T uint8 | uint16](pix []T, kind string, width int) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d ", kind, width)
	_ = binary.Write(h, binary.LittleEndian, pix) // writing to a hash cannot fail
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// readIndex returns the index in a file, or nil if the file is missing or not
// valid: the index can always be made again.
func readIndex(path string) index {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.ReuseRecord = true
	if head, err := r.Read(); err != nil || !slices.Equal(head, indexHeader) {
		return nil
	}
	x := index{}
	for {
		row, err := r.Read()
		if err == io.EOF {
			return x
		}
		if err != nil || len(row) != len(indexHeader) {
			return nil
		}
		var n [8]int64
		for _, i := range []int{1, 2, 3, 4, 6, 7} {
			if n[i], err = strconv.ParseInt(row[i], 10, 64); err != nil {
				return nil
			}
		}
		values, ok := decodeValues(row[8])
		if !ok {
			return nil
		}
		x[strings.Clone(row[0])] = entry{n[1], n[2], int(n[3]), int(n[4]), strings.Clone(row[5]), int(n[6]), int(n[7]), values}
	}
}

// write writes the index as a CSV file, sorted by file name.
func (x index) write(path string) error {
	files := make([]string, 0, len(x))
	for f := range x {
		files = append(files, f)
	}
	slices.Sort(files)
	return atomicfile.Write(path, func(w io.Writer) error {
		c := csv.NewWriter(w)
		c.Write(indexHeader)
		n := func(v int64) string { return strconv.FormatInt(v, 10) }
		for _, f := range files {
			e := x[f]
			c.Write([]string{f, n(e.bytes), n(e.mtime), n(int64(e.width)), n(int64(e.height)), e.hash, n(int64(e.channels)), n(int64(e.levels)), e.values.encode()})
		}
		c.Flush()
		return c.Error()
	})
}

package metric

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// The encoding of a table: the magic, the version, the classes, the thresholds
// (float64), the bins of the histograms, the cases, and the CRC-32 (IEEE) of all bytes
// before it. Integers are varints, and each string follows its length. The counts of a
// case go from the highest threshold down, each as its difference to the one before. A
// run of zeros is written as one 0 and the length of the run.
const (
	tableMagic   = "hcunet cases\n"
	tableVersion = 1
)

// MarshalBinary returns a compact encoding of the table. Tables with the same cases
// give the same bytes, in whatever order the cases were added.
func (t *Table) MarshalBinary() ([]byte, error) {
	cases, histograms := t.snapshot()
	w := tableWriter{b: []byte(tableMagic)}
	w.int(tableVersion)
	w.int(len(t.classes))
	for _, c := range t.classes {
		w.string(c)
	}
	w.int(len(t.thresholds))
	for _, v := range t.thresholds {
		w.float(v)
	}
	for i := range histograms {
		var counts []int
		for _, c := range histograms[i].counts {
			counts = append(counts, int(c[0]), int(c[1]))
		}
		w.sparse(counts)
	}
	w.int(len(cases))
	for _, c := range cases {
		w.int(c.Fold)
		w.int(c.Index)
		w.string(c.Name)
		w.string(c.Group)
		for _, curve := range c.curves {
			w.int(curve.Pixels)
			w.int(curve.Target)
			w.float(curve.Sum)
			w.sparse(steps(curve.Predicted))
			w.sparse(steps(curve.Both))
		}
	}
	return binary.LittleEndian.AppendUint32(w.b, crc32.ChecksumIEEE(w.b)), nil
}

// steps returns, from the highest threshold down, the difference between each count
// and the count at the next higher threshold.
func steps(counts []int32) []int {
	out, before := make([]int, 0, len(counts)), int32(0)
	for _, n := range slices.Backward(counts) {
		out, before = append(out, int(n-before)), n
	}
	return out
}

type tableWriter struct{ b []byte }

func (w *tableWriter) int(n int) { w.b = binary.AppendVarint(w.b, int64(n)) }
func (w *tableWriter) float(v float64) {
	w.b = binary.LittleEndian.AppendUint64(w.b, math.Float64bits(v))
}
func (w *tableWriter) string(s string) {
	w.int(len(s))
	w.b = append(w.b, s...)
}

func (w *tableWriter) sparse(values []int) {
	for i := 0; i < len(values); {
		w.int(values[i])
		if values[i] != 0 {
			i++
			continue
		}
		zeros := 1
		for i+zeros < len(values) && values[i+zeros] == 0 {
			zeros++
		}
		w.int(zeros)
		i += zeros
	}
}

// ReadTable reads what MarshalBinary wrote. It returns an error if b is something
// else, is cut short or has a changed byte. The table takes at most 8 bytes per
// threshold, class and case, however large the numbers in b are.
func ReadTable(b []byte) (*Table, error) {
	if !bytes.HasPrefix(b, []byte(tableMagic)) {
		return nil, errors.New("metric: this is not a table of cases")
	}
	if len(b) < len(tableMagic)+4 {
		return nil, errors.New("metric: the table of cases is cut short")
	}
	body := b[:len(b)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(b[len(body):]) {
		return nil, errors.New("metric: the table of cases is damaged or cut short: its checksum differs")
	}
	r := &tableReader{b: body[len(tableMagic):]}
	if v := r.int(); v != tableVersion {
		return nil, fmt.Errorf("metric: the table of cases has version %d, this program reads version %d", v, tableVersion)
	}
	t, err := r.table()
	if r.err != nil {
		err = r.err
	}
	if err != nil {
		return nil, fmt.Errorf("metric: a table of cases: %w", err)
	}
	return t, nil
}

// tableReader reads values until the first error; after that it returns zeros.
type tableReader struct {
	b   []byte
	err error
}

func (r *tableReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.b = nil
}

func (r *tableReader) int() int {
	v, n := binary.Varint(r.b)
	if n <= 0 || v < math.MinInt || v > math.MaxInt {
		r.fail("a number is missing or too large")
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// length reads the number of entries that follow, each of at least size bytes.
func (r *tableReader) length(size int) int {
	n := r.int()
	if n < 0 || n > len(r.b)/size {
		r.fail("%d entries in %d bytes", n, len(r.b))
		return 0
	}
	return n
}

func (r *tableReader) float() float64 {
	if len(r.b) < 8 {
		r.fail("a number is missing")
		return 0
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(r.b))
	r.b = r.b[8:]
	return v
}

func (r *tableReader) string() string {
	n := r.length(1)
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// sparse fills to with values that are not negative and sum to at most limit.
func (r *tableReader) sparse(to []int, limit int) {
	clear(to)
	for i := 0; i < len(to) && r.err == nil; {
		switch v := r.int(); {
		case v < 0 || v > limit:
			r.fail("a count of %d where at most %d are left", v, limit)
		case v > 0:
			to[i] = v
			limit -= v
			i++
		default:
			zeros := r.int()
			if zeros < 1 || zeros > len(to)-i {
				r.fail("%d zeros where at most %d values are left", zeros, len(to)-i)
			}
			i += zeros
		}
	}
}

func (r *tableReader) table() (*Table, error) {
	classes := make([]string, r.length(1))
	for i := range classes {
		classes[i] = r.string()
	}
	thresholds := make([]float64, r.length(8))
	for i := range thresholds {
		thresholds[i] = r.float()
	}
	if r.err != nil {
		return nil, r.err
	}
	t, err := NewTable(classes, thresholds)
	if err != nil {
		return nil, err
	}
	bins := make([]int, 2*(resolution+1))
	for i := range t.histograms {
		r.sparse(bins, math.MaxInt)
		for j := range t.histograms[i].counts {
			t.histograms[i].counts[j] = [2]int64{int64(bins[2*j]), int64(bins[2*j+1])}
		}
	}
	values := make([]int, len(thresholds))
	for range r.length(4) {
		c := &tableCase{Case: Case{Fold: r.int(), Index: r.int(), Name: r.string(), Group: r.string()}, curves: make([]Curve, len(classes))}
		for i := range c.curves {
			c.curves[i] = r.curve(values)
		}
		if r.err != nil {
			return nil, fmt.Errorf("case %q: %w", c.Name, r.err)
		}
		if err := t.insert(c); err != nil {
			return nil, err
		}
	}
	if len(r.b) > 0 {
		return nil, fmt.Errorf("%d bytes after the last case", len(r.b))
	}
	return t, nil
}

func (r *tableReader) curve(values []int) Curve {
	c := Curve{Pixels: r.int(), Target: r.int(), Sum: r.float()}
	if c.Pixels < 0 || c.Pixels > math.MaxInt32 || c.Target < 0 || c.Target > c.Pixels {
		r.fail("%d of %d pixels in the target", c.Target, c.Pixels)
		return c
	}
	c.Predicted, c.Both = make([]int32, len(values)), make([]int32, len(values))
	for _, counts := range []struct {
		to    []int32
		limit int
	}{{c.Predicted, c.Pixels}, {c.Both, c.Target}} {
		r.sparse(values, counts.limit)
		sum := int32(0)
		for i, v := range values {
			sum += int32(v)
			counts.to[len(counts.to)-1-i] = sum
		}
	}
	for k := range c.Both {
		if c.Both[k] > c.Predicted[k] || int(c.Predicted[k]-c.Both[k]) > c.Pixels-c.Target {
			r.fail("%d pixels predicted, %d of them in a target of %d of %d pixels", c.Predicted[k], c.Both[k], c.Target, c.Pixels)
			break
		}
	}
	return c
}

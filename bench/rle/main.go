// Command rle compares package rle with the challenge's Python helper in decoding and
// encoding the rows of the official SIIM-ACR training CSV, on one core each, and prints
// the ratios of the times.
//
//	go run ./bench/rle -csv train-rle.csv
//
// It needs the CSV (plain or gzipped) and a Python with numpy. All rows with runs are
// decoded. Only every 60th of them is encoded, because the helper needs a seventh of a
// second for one; -every 1 encodes all.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	_ "embed"

	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/rle"
)

//go:embed helper.py
var helper string

const size = 1024

func main() {
	path := flag.String("csv", "../shared/data/siim-csv/train-rle.csv.gz", "the official training `file`")
	python := flag.String("python", "python3", "an `interpreter` that has numpy")
	every := flag.Int("every", 60, "encode every `n`th row")
	flag.Parse()
	if err := run(*path, *python, max(*every, 1)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path, python string, every int) error {
	rows, err := readRows(path)
	if err != nil {
		return err
	}
	var peer struct {
		Decode, Encode float64
		Encoded        int
		Python, NumPy  string
	}
	cmd := exec.Command(python, "-c", helper, fmt.Sprint(every))
	cmd.Stdin = strings.NewReader(strings.Join(rows, "\n"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w (-python names an interpreter that has numpy)", python, err)
	}
	if err := json.Unmarshal(out, &peer); err != nil {
		return err
	}

	runtime.GOMAXPROCS(1)
	fresh, err := fastest(func() error {
		for _, s := range rows {
			if _, err := rle.Decode(s, size, size, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	buffer := make([]uint8, size*size)
	reused, err := fastest(func() error {
		for _, s := range rows {
			clear(buffer)
			if err := rle.DecodeInto(buffer, s, size, size, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}

	var masks [][]uint8
	for i := 0; i < len(rows); i += every {
		m, err := rle.Decode(rows[i], size, size, nil)
		if err != nil {
			return err
		}
		masks = append(masks, m.Pix)
	}
	encode, err := fastest(func() error {
		for i, m := range masks {
			if rle.EncodePixels(m, size, size, nil) != rows[i*every] {
				return fmt.Errorf("row %d changed on the way", i*every)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}

	fmt.Printf("%d rows with runs, %dx%d; microseconds a row on one core\n", len(rows), size, size)
	fmt.Printf("%-24s %14s %14s %9s\n", "", "Python "+peer.Python, runtime.Version(), "ratio")
	line := func(what string, peer float64, ours time.Duration, n int) {
		fmt.Printf("%-24s %14.1f %14.1f %8.1fx   (%d rows)\n", what, peer*1e6/float64(n), ours.Seconds()*1e6/float64(n), peer/ours.Seconds(), n)
	}
	line("decode into one buffer", peer.Decode, reused, len(rows))
	line("decode to a new image", peer.Decode, fresh, len(rows))
	line("encode", peer.Encode, encode, peer.Encoded)
	return nil
}

// fastest returns the time of the fastest of five runs, as the helper does for decoding.
func fastest(f func() error) (time.Duration, error) {
	best := time.Duration(math.MaxInt64)
	for range 5 {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		best = min(best, time.Since(start))
	}
	return best, nil
}

// readRows returns the run-length strings of all rows that have runs.
func readRows(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w (-csv names the official train-rle.csv)", err)
	}
	var r io.Reader = bytes.NewReader(b)
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	table, err := maskcsv.Read(r, &maskcsv.Options{Width: size, Height: size})
	if err != nil {
		return nil, err
	}
	var rows []string
	for _, id := range table.IDs {
		for _, row := range table.Rows(id) {
			if row.Runs != "" {
				rows = append(rows, row.Runs)
			}
		}
	}
	return rows, nil
}

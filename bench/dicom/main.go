// Command dicom compares package data/dicom with pydicom in reading DICOM films of 8 bits,
// on one core each. It prints the ratio of the times and compares all pixels.
//
//	go run ./bench/dicom [-rounds 10] FILES
//
// It needs a Python with pydicom and a decoder for the files (on Debian:
// python3-pydicom with python3-pil or python3-gdcm). The times are processor time of the
// fastest round, without the start of the programs and imports.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	_ "embed"

	"golang.org/x/sys/unix"

	"github.com/hcunet/hcunet/data/dicom"
)

//go:embed peer.py
var peer string

func main() {
	rounds := flag.Int("rounds", 10, "`number` of rounds over all files; the fastest counts")
	python := flag.String("python", "/usr/bin/python3", "an `interpreter` that has pydicom")
	flag.Parse()
	files := flag.Args()
	if len(files) == 0 {
		files, _ = filepath.Glob("../shared/data/siim/dicom/*.dcm")
	}
	if err := run(files, *python, max(*rounds, 1)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(files []string, python string, rounds int) error {
	if len(files) == 0 {
		return fmt.Errorf("no files: name some")
	}
	runtime.GOMAXPROCS(1)
	ours, sum, err := read(files, rounds)
	if err != nil {
		return err
	}
	var theirs struct {
		Seconds         float64
		SHA256, Version string
	}
	cmd := exec.Command(python, append([]string{"-c", peer, fmt.Sprint(rounds)}, files...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", python, err)
	}
	if err := json.Unmarshal(out, &theirs); err != nil {
		return err
	}
	n := float64(len(files))
	fmt.Printf("%d films, ms a film: data/dicom %.2f, pydicom %s %.2f: %.1f times as fast\n",
		len(files), 1e3*ours/n, theirs.Version, 1e3*theirs.Seconds/n, theirs.Seconds/ours)
	if sum != theirs.SHA256 {
		return fmt.Errorf("the pixels differ")
	}
	fmt.Println("the pixels are the same")
	return nil
}

// read returns the processor seconds of the fastest round and the SHA-256 of all pixels.
func read(files []string, rounds int) (best float64, sum string, err error) {
	best = math.Inf(1)
	for range rounds {
		h, start := sha256.New(), cpu()
		var films []*dicom.Film
		for _, f := range files {
			film, err := dicom.Open(f, nil)
			if err != nil {
				return 0, "", err
			}
			films = append(films, film)
		}
		best = min(best, cpu()-start)
		for _, f := range films {
			h.Write(f.Gray().Pix)
		}
		sum = hex.EncodeToString(h.Sum(nil))
	}
	return best, sum, nil
}

// cpu returns the processor time in seconds that this process has used.
func cpu() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return math.NaN()
	}
	t := func(v unix.Timeval) float64 { return float64(v.Sec) + float64(v.Usec)/1e6 }
	return t(u.Utime) + t(u.Stime)
}

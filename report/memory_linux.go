package report

import (
	"bytes"
	"os"
	"strconv"
)

// residentMemory returns the resident memory of this process in bytes, 0 if it
// is not known.
//
// Source: proc(5), /proc/pid/statm, the second field, in pages.
func residentMemory() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

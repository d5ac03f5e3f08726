package dicom

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
)

// BenchmarkRead reads one 1024x1024 JPEG baseline film of the SIIM set.
func BenchmarkRead(b *testing.B) {
	files, err := filepath.Glob(filepath.Join(golden.Path(b, "data/siim/dicom"), "*.dcm"))
	if err != nil || len(files) == 0 {
		b.Fatalf("no films: %v", err)
	}
	var all [][]byte
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, data)
	}
	b.SetBytes(1 << 20) // pixels
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := Read(bytes.NewReader(all[i%len(all)]), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHeader reads all of a film but its pixels.
func BenchmarkHeader(b *testing.B) {
	data, err := os.ReadFile(golden.Path(b, "data/siim/dicom/1.2.276.0.7230010.3.1.4.8323329.10001.1517875220.930580.dcm"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(bytes.NewReader(data), &Options{HeaderOnly: true}); err != nil {
			b.Fatal(err)
		}
	}
}

package data

import (
	"fmt"
	"image"
	"os"
	"path/filepath"
	"testing"

	"github.com/hcunet/hcunet/data/internal/sketch"
)

// BenchmarkOpen opens 500 images of 256x256 with their masks, for the first time
// and with an index.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for i := range 500 {
		sketch.WritePNG(b, sketch.Plain(256, 256, i), dir, TrainDir, fmt.Sprintf("%04d.png", i))
		sketch.WritePNG(b, sketch.Box(256, 256, image.Rect(i%50, 20, 100, 90)), dir, MasksDir, fmt.Sprintf("%04d.png", i))
	}
	for _, first := range []bool{true, false} {
		b.Run(map[bool]string{true: "first", false: "index"}[first], func(b *testing.B) {
			for b.Loop() {
				if first {
					os.Remove(filepath.Join(dir, IndexFile))
				}
				if _, err := Open(dir, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

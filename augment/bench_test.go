package augment

import (
	"math/rand/v2"
	"testing"
)

func BenchmarkFull256(b *testing.B) {
	p := cases["composed_all"]
	image := make([]float32, 256*256)
	mask := make([]uint8, 256*256)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range image {
		image[i] = r.Float32()
		mask[i] = uint8(i / 7 % 2)
	}
	var outI []float32
	var outM []uint8
	b.Run("image", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			plan, _ := p.Plan(256, 256, 256)
			outI = plan.Image(outI, image)
		}
	})
	b.Run("mask", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			plan, _ := p.Plan(256, 256, 256)
			outM = Mask(&plan, outM, mask)
		}
	})
	b.Run("draws", func(b *testing.B) { // what training does: draw, image, mask
		b.ReportAllocs()
		for b.Loop() {
			plan, _ := Default().Draw(r).Plan(256, 256, 256)
			outI = plan.Image(outI, image)
			outM = Mask(&plan, outM, mask)
		}
	})
	b.Run("lighting", func(b *testing.B) {
		for b.Loop() {
			relight(image, 0.1, 1.1)
		}
	})
	b.Run("brightness", func(b *testing.B) {
		for b.Loop() {
			relight(image, 0.1, 1)
		}
	})
	b.Run("average", func(b *testing.B) {
		in := make([]float32, 1024*1024)
		for b.Loop() {
			plan, _ := Identity().Plan(1024, 1024, 256)
			outI = plan.Image(outI, in)
		}
	})
}

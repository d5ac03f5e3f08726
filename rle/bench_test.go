package rle

import (
	"image"
	"math"
	"testing"
)

// film is a mask of 1024x1024 like a real one: a crescent of 12,000 pixels in a
// few hundred columns, and a spot.
func film() *image.Gray {
	m := image.NewGray(image.Rect(0, 0, 1024, 1024))
	for x := 150; x < 400; x++ {
		top := 120 + int(1.5*math.Abs(float64(x-275)))
		for y := top; y < top+48; y++ {
			m.Pix[y*1024+x] = 255
		}
	}
	m.Pix[700*1024+800] = 255
	return m
}

func BenchmarkEncode(b *testing.B) {
	for name, m := range map[string]*image.Gray{"film": film(), "empty": image.NewGray(image.Rect(0, 0, 1024, 1024))} {
		for format, opt := range map[string]*Options{"SIIM": &SIIM, "row-major": {Order: RowMajor}, "kernel": {Kernel: true}} {
			b.Run(name+"/"+format, func(b *testing.B) {
				for b.Loop() {
					Encode(m, opt)
				}
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	s := Encode(film(), nil)
	b.Run("new image", func(b *testing.B) {
		for b.Loop() {
			if _, err := Decode(s, 1024, 1024, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("union", func(b *testing.B) {
		dst := make([]uint8, 1024*1024)
		for b.Loop() {
			if err := DecodeInto(dst, s, 1024, 1024, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("clear and union", func(b *testing.B) {
		dst := make([]uint8, 1024*1024)
		for b.Loop() {
			clear(dst)
			if err := DecodeInto(dst, s, 1024, 1024, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			if _, err := Parse(s, 1024*1024, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

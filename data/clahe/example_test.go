package clahe_test

import (
	"fmt"
	"image"

	"github.com/hcunet/hcunet/data/clahe"
	"github.com/hcunet/hcunet/data/resize"
)

// A set of films becomes the notebook's input: resized, equalized, as bytes, with
// the mean and the standard deviation that normalize them later.
func Example() {
	films := []*image.Gray{image.NewGray(image.Rect(0, 0, 64, 48)), image.NewGray(image.Rect(0, 0, 40, 56))}
	for i, film := range films {
		for j := range film.Pix {
			x, y := j%film.Stride, j/film.Stride
			film.Pix[j] = uint8(60 + x + 2*y + 20*i*(x/9%2))
		}
	}
	var (
		equalizer clahe.Equalizer
		all       clahe.Stats
	)
	for _, film := range films {
		small, err := resize.Linear(film, 32, 32)
		if err != nil {
			fmt.Println(err)
			return
		}
		out, stats, err := equalizer.Gray(small, small) // in place
		if err != nil {
			fmt.Println(err)
			return
		}
		all.Merge(stats)
		fmt.Println(out.Rect.Size(), out.Pix[0], out.Pix[32*16+16], out.Pix[32*32-1])
	}
	fmt.Printf("%d values, mean %.3f, standard deviation %.3f\n", all.N, all.Mean(), all.Std())
	// Output:
	// (32,32) 0 153 255
	// (32,32) 0 102 187
	// 2048 values, mean 0.610, standard deviation 0.141
}

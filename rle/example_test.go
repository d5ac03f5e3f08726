package rle_test

import (
	"errors"
	"fmt"
	"image"

	"github.com/hcunet/hcunet/rle"
)

// The L of the package comment, in every format.
func ExampleEncode() {
	mask := &image.Gray{Rect: image.Rect(0, 0, 4, 3), Stride: 4, Pix: []uint8{
		0, 0, 255, 0,
		0, 255, 255, 0,
		0, 255, 0, 0,
	}}
	fmt.Println("SIIM-ACR  ", rle.Encode(mask, nil))
	fmt.Println("TGS       ", rle.Encode(mask, &rle.TGS))
	fmt.Println("row-major ", rle.Encode(mask, &rle.Options{Order: rle.RowMajor}))
	fmt.Println("COCO      ", rle.Counts(mask, rle.ColumnMajor))
	fmt.Println("no mask   ", rle.Encode(image.NewGray(mask.Rect), nil))
	// Output:
	// SIIM-ACR   4 4
	// TGS        5 4
	// row-major  2 1 2 2 2 1
	// COCO       [4 4 4]
	// no mask    -1
}

func ExampleDecode() {
	mask, err := rle.Decode("4 4", 4, 3, nil)
	if err != nil {
		panic(err)
	}
	for y := range 3 {
		fmt.Println(mask.Pix[4*y : 4*y+4])
	}

	_, err = rle.Decode("4 4 3 2", 4, 3, nil)
	var syntax *rle.SyntaxError
	fmt.Println(errors.As(err, &syntax), err)
	// Output:
	// [0 0 255 0]
	// [0 255 255 0]
	// [0 255 0 0]
	// true rle: at offset 6: run leaves the image: it starts at pixel 11 of 12 (counted from 0) and is longer than 1
}

// An image with two rows in a file has the union of both as its mask.
func ExampleDecodeInto() {
	mask := make([]uint8, 4*3)
	for _, runs := range []string{"0 2", "1 3"} {
		if err := rle.DecodeInto(mask, runs, 4, 3, nil); err != nil {
			panic(err)
		}
	}
	fmt.Println(rle.EncodePixels(mask, 4, 3, nil))
	// Output: 0 4
}

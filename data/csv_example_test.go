package data_test

import (
	"fmt"
	"os"
	"strings"

	"github.com/hcunet/hcunet/data"
)

func ExampleReadMasks() {
	const file = `ImageId, EncodedPixels
1.2.840.1, -1
1.2.840.2,1 2 2 1
1.2.840.2,2 4
`
	table, err := data.ReadMasks(strings.NewReader(file), &data.MaskOptions{Width: 4, Height: 3})
	if err != nil {
		panic(err)
	}
	for _, id := range table.IDs {
		mask, err := table.Mask(id, 4, 3)
		if err != nil {
			panic(err)
		}
		fmt.Println(id, len(table.Rows(id)), "rows", mask.Pix)
	}
	// Output:
	// 1.2.840.1 1 rows [0 0 0 0 0 0 0 0 0 0 0 0]
	// 1.2.840.2 2 rows [0 255 0 0 255 255 0 0 255 255 0 0]
}

func ExampleWriteSubmission() {
	err := data.WriteSubmission(os.Stdout, []data.MaskRow{
		{ID: "ID_0011fe81e", Runs: "303244 4 1020 4"},
		{ID: "ID_9ca06e9b9"},
	})
	if err != nil {
		panic(err)
	}
	// Output:
	// ImageId,EncodedPixels
	// ID_0011fe81e,303244 4 1020 4
	// ID_9ca06e9b9,-1
}

// The notebook's four folds of ten files.
func ExampleKFold() {
	folds, err := data.KFold(10, 4, data.KernelSeed)
	if err != nil {
		panic(err)
	}
	for f, valid := range folds {
		fmt.Println("train", folds.Train(f), "valid", valid)
	}
	// Output:
	// train [0 1 2 5 6 7 8] valid [3 4 9]
	// train [2 3 4 5 7 8 9] valid [0 1 6]
	// train [0 1 2 3 4 6 8 9] valid [5 7]
	// train [0 1 3 4 5 6 7 9] valid [2 8]
}

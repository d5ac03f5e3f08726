package maskcsv_test

import (
	"fmt"
	"os"
	"strings"

	"github.com/hcunet/hcunet/data/maskcsv"
)

func ExampleRead() {
	const file = `ImageId, EncodedPixels
1.2.840.1, -1
1.2.840.2,1 2 2 1
1.2.840.2,2 4
`
	table, err := maskcsv.Read(strings.NewReader(file), &maskcsv.Options{Width: 4, Height: 3})
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
	err := maskcsv.WriteSubmission(os.Stdout, []maskcsv.Row{
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

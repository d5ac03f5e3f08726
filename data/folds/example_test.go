package folds_test

import (
	"fmt"

	"github.com/hcunet/hcunet/data/folds"
)

// The notebook's four folds of ten files.
func ExampleKFold() {
	folds, err := folds.KFold(10, 4, folds.KernelSeed)
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

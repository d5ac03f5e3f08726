package prepare_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/phantom"
	"github.com/hcunet/hcunet/data/prepare"
)

// From films and a CSV of runs to images in memory.
func Example() {
	dir, err := os.MkdirTemp("", "prepare")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	films, out := filepath.Join(dir, "films"), filepath.Join(dir, "64")
	if _, err := phantom.Write(context.Background(), films, &phantom.Options{Train: 8, Test: 1}); err != nil {
		log.Fatal(err)
	}

	preparation := data.DefaultPreparation()
	preparation.Size = 64
	sum, err := prepare.Run(context.Background(), prepare.Options{
		Images:      []string{filepath.Join(films, phantom.TrainDir)},
		RLE:         filepath.Join(films, phantom.TrainRuns),
		Test:        []string{filepath.Join(films, phantom.TestDir)},
		Out:         out,
		Preparation: preparation,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sum.Train, "training films,", sum.Positive, "positive,", sum.Test, "test film")

	set, err := data.Open(out, nil)
	if err != nil {
		log.Fatal(err)
	}
	img, mask, err := set.Train[0].Load(set.Task)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(set.Train[0].Name, set.Train[0].Patient, img.Width, img.Height, len(mask))
	// Output:
	// 8 training films, 2 positive, 1 test film
	// phantom-0-00000 PHANTOM-0-00000 64 64 4096
}

package feed_test

import (
	"context"
	"fmt"
	"log"

	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/feed"
)

// Five images of one pixel in batches of two, in the order of the second epoch.
func Example() {
	var items []feed.Item
	for i := range 5 {
		img := &picture.Image{Width: 1, Height: 1, Channels: 1, Pix8: []uint8{uint8(51 * i)}}
		items = append(items, feed.Still(fmt.Sprintf("film %d", i), img, []uint8{0}))
	}
	images, err := feed.Read(context.Background(), items, nil)
	if err != nil {
		log.Fatal(err)
	}
	loader, err := feed.NewLoader(images, feed.LoaderOptions{Batch: 2, Shuffle: true, Seed: 2019})
	if err != nil {
		log.Fatal(err)
	}
	for batch, err := range loader.Epoch(1, 0) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("a batch of", batch.N)
		for i, image := range batch.Indices {
			fmt.Printf("  %s: %.1f\n", loader.Name(image), batch.Images[i])
		}
	}
	// Output:
	// a batch of 2
	//   film 3: 0.6
	//   film 1: 0.2
	// a batch of 2
	//   film 2: 0.4
	//   film 4: 0.8
	// a batch of 1
	//   film 0: 0.0
}

package augment_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/hcunet/hcunet/augment"
)

// One item's transforms are drawn once and applied to its image and its mask.
func Example() {
	image := []float32{ // 3 rows of 4, values in [0, 1]
		0.0, 0.1, 0.2, 0.3,
		0.4, 0.5, 0.6, 0.7,
		0.8, 0.9, 1.0, 0.9,
	}
	mask := []uint8{
		0, 0, 0, 0,
		0, 1, 1, 0,
		0, 0, 1, 0,
	}
	config := augment.Default()
	config.MaxWarp, config.PLighting = 0, 0
	if err := config.Check(); err != nil {
		fmt.Println(err)
		return
	}
	source := rand.New(rand.NewPCG(2019, 2))
	params := config.Draw(source)
	plan, err := params.Plan(3, 4, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("turn %.1f°, zoom %.2f, flip %v\n", params.Degrees, params.Zoom, params.Flip)
	fmt.Printf("%.2f\n", plan.Image(nil, image))
	fmt.Println(augment.Mask(&plan, nil, mask))
	// Output:
	// turn 4.2°, zoom 1.05, flip true
	// [0.35 0.23 0.11 0.02 0.71 0.60 0.48 0.37 0.91 0.97 0.86 0.75]
	// [0 0 0 0 0 1 1 0 0 1 0 0]
}

// The numbers of a plan, for a sampler on a device.
func ExamplePlan_Sampling() {
	params := augment.Identity()
	params.Zoom, params.ZoomRow, params.ZoomCol = 1.25, 0.5, 1
	params.Brightness = 0.6
	params.Flip = true
	plan, err := params.Plan(256, 256, 256)
	if err != nil {
		fmt.Println(err)
		return
	}
	s := plan.Sampling()
	fmt.Printf("%.1f\n%.1f\n%.1f\n", s[0:3], s[3:6], s[6:9])
	fmt.Printf("logit + %.3f, times %g\n", plan.LogitShift, plan.LogitScale)
	// Output:
	// [-0.8 0.0 0.2]
	// [0.0 0.8 0.0]
	// [0.0 0.0 1.0]
	// logit + 0.405, times 1
}

// Test-time augmentation: predict the mirrored image, mirror the prediction.
func ExampleFlip() {
	prediction := []float32{
		0.1, 0.2, 0.9,
		0.0, 0.8, 0.7,
	}
	augment.Flip(prediction, 3)
	fmt.Println(prediction)
	// Output: [0.9 0.2 0.1 0.7 0.8 0]
}

package phantom_test

import (
	"fmt"

	"github.com/hcunet/hcunet/data/phantom"
)

func ExampleDraw() {
	c := phantom.Draw(2019, 1)
	fmt.Println(c.Name, "of patient", c.Patient, c.Image.Bounds().Max)
	fmt.Println("pneumothorax:", phantom.Positive(2019, 1))
	// Output:
	// phantom-2019-00001 of patient PHANTOM-2019-00001 (1024,1024)
	// pneumothorax: true
}

package metric_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/hcunet/hcunet/metric"
)

func ExampleOverlap_Dice() {
	prob := []float32{0.1, 0.9, 0.8, 0.2}
	target := []uint8{0, 1, 1, 1}
	o := metric.Compare(prob, target, 1, 0.5, metric.Noise{})
	fmt.Printf("%+v: Dice %.2f, IoU %.2f\n", o, o.Dice(), o.IoU())
	// Output: {Both:2 Predicted:2 Target:3}: Dice 0.80, IoU 0.67
}

// Each image is added once; its probabilities are not needed afterwards.
func ExampleSweep() {
	sweep := metric.NewSweep(nil, metric.Noise{})
	sweep.Add([]float32{0.1, 0.9, 0.8, 0.2}, []uint8{0, 1, 1, 1}, 1)
	sweep.Add([]float32{0.3, 0.1, 0.0, 0.2}, []uint8{0, 0, 0, 0}, 1)
	threshold, at := sweep.Best()
	fmt.Printf("%.2f: %v\n", threshold, at)
	// Output: 0.30: Dice 0.9000 = 0.5000·1.0000 (specificity, 1 negatives) + 0.5000·0.8000 (Dice, 1 positives); predicting nothing: 0.5000
}

func ExampleSummarize() {
	images := []metric.Overlap{
		{Both: 0, Predicted: 0, Target: 0},
		{Both: 0, Predicted: 0, Target: 0},
		{Both: 0, Predicted: 5, Target: 0},
		{Both: 30, Predicted: 40, Target: 60},
	}
	fmt.Println(metric.Summarize(images, &metric.ReportOptions{Rand: rand.New(rand.NewPCG(1, 2))}))
	// Output:
	// Dice              0.6500  [0.2500, 1.0000] with probability 0.95  thresholds chosen beforehand
	//   = 0.7500 * 0.6667  share of negatives (3) * case specificity
	//   + 0.2500 * 0.6000  share of positives (1) * their Dice
	// nothing at all    0.7500  what predicting nothing would score
	// IoU               0.6071  on positives 0.4286
	// case sensitivity  1.0000  positives with anything predicted
}

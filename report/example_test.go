package report_test

import (
	"math"
	"os"
	"time"

	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/report"
)

// On a terminal there would be a bar below the table.
func ExampleProgress() {
	p := report.NewProgress(os.Stdout)
	p.Start("fold 0 frozen", 2*3)
	for epoch := range 2 {
		for range 3 {
			p.Step(0.5, 8)
		}
		p.Epoch(metric.Epoch{Epoch: epoch, TrainLoss: 0.5, Time: 83 * time.Second, Values: metric.Values{{Name: metric.ValidLoss, Value: 0.25}, {Name: "dice", Value: 0.8125}}})
	}
	p.End()
	// Output:
	// fold 0 frozen: 6
	// epoch     train_loss  valid_loss  dice      time
	// 0         0.500000    0.250000    0.812500  01:23
	// 1         0.500000    0.250000    0.812500  01:23
}

func ExampleWriteEpochLine() {
	report.WriteEpochLine(os.Stdout, metric.Epoch{
		Phase: "frozen", TrainLoss: 0.5, Values: metric.Values{{Name: metric.ValidLoss, Value: 0.25}, {Name: "dice", Value: 0.8125}},
		Rate: 0.001, Speed: 12.5, Time: 83500 * time.Millisecond,
	})
	// Output:
	// {"phase":"frozen","epoch":0,"train_loss":0.5,"values":{"valid_loss":0.25,"dice":0.8125},"rate":0.001,"images_per_second":12.5,"seconds":83.5}
}

func ExampleWriteCases() {
	report.WriteCases(os.Stdout, []report.Case{
		{Fold: 0, Name: "0001.png", Patient: "P7", Overlap: metric.Overlap{Both: 30, Predicted: 40, Target: 60}, HD95: 4.5, Surface: 1.25, Unit: "mm", Threshold: 0.3},
		{Fold: 1, Name: "0002.png", HD95: math.NaN(), Surface: math.NaN(), Unit: "mm", Threshold: 0.25},
	})
	// Output:
	// fold,name,patient,class,target_pixels,predicted_pixels,dice,iou,hausdorff95,surface_distance,unit,threshold
	// 0,0001.png,P7,,60,40,0.6,0.42857142857142855,4.5,1.25,mm,0.3
	// 1,0002.png,,,0,0,1,1,,,mm,0.25
}

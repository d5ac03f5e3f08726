package report_test

import (
	"fmt"
	"log"
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

// The scores of a table of held-out cases, on a page that shows the unbiased
// score first.
func ExampleNewPage() {
	table, err := metric.NewTable([]string{"pneumothorax"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for i := range 8 { // images of four pixels, every other one with a target
		target := []uint8{1, 1, 0, 0}
		prob := []float32{0.9, 0.3, 0.2, 0}
		if i%2 == 1 {
			target, prob = []uint8{0, 0, 0, 0}, []float32{0.1, 0, 0, 0}
		}
		c := metric.Case{Fold: i / 4, Index: i, Name: fmt.Sprintf("%d.png", i), Group: fmt.Sprint("patient ", i/2)}
		if err := table.Add(c, [][]float32{prob}, target); err != nil {
			log.Fatal(err)
		}
	}
	choices, err := table.Search(1, nil)
	if err != nil {
		log.Fatal(err)
	}
	pooled := &choices.Pooled
	nested, err := table.Report(1, pooled.NestedRule, &metric.ReportOptions{Chosen: metric.ChosenOnOthers})
	if err != nil {
		log.Fatal(err)
	}
	cases, err := report.CasesOf(table, 1, pooled.NestedRule)
	if err != nil {
		log.Fatal(err)
	}
	page := report.NewPage(report.Run{
		Title:   "Films",
		Classes: []report.ClassScores{{Nested: nested, Rules: report.RulesOf(choices, pooled)}},
		Cases:   cases,
	})
	fmt.Println(page.Subtitle)
	for _, s := range page.Sections {
		fmt.Println(s.Heading)
		for _, n := range s.Numbers {
			fmt.Println(" ", n.Value, n.Label+",", n.Note)
		}
	}
	// Output:
	// 8 held-out cases · 4 with a target, 4 without · 4 patients
	// Scores
	//   1.0000 mean Dice, thresholds chosen on the other folds
	//   1.0000 mean IoU, same cases, same thresholds
	//   0.5000 predicting nothing, the score of an empty mask for every case
	// Cases
}

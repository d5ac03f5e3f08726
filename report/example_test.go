package report_test

import (
	"os"
	"time"

	"github.com/hcunet/hcunet/report"
)

// On a terminal there would be a bar below the table.
func ExampleProgress() {
	p := report.NewProgress(os.Stdout)
	p.Start("fold 0 frozen", 2*3)
	for epoch := range 2 {
		for range 3 {
			p.Step(0.5)
		}
		p.Epoch(report.Epoch{Epoch: epoch, TrainLoss: 0.5, ValidLoss: 0.25, Dice: 0.8125, Time: 83 * time.Second})
	}
	p.End()
	// Output:
	// fold 0 frozen: 6
	// epoch     train_loss  valid_loss  dice      time
	// 0         0.500000    0.250000    0.812500  01:23
	// 1         0.500000    0.250000    0.812500  01:23
}

func ExampleWriteEpochs() {
	report.WriteEpochs(os.Stdout, []report.Epoch{
		{Phase: "frozen", Epoch: 0, TrainLoss: 0.5, ValidLoss: 0.25, Dice: 0.8125, Time: 83500 * time.Millisecond},
	})
	// Output:
	// phase,epoch,train_loss,valid_loss,dice,seconds
	// frozen,0,0.5,0.25,0.8125,83.5
}

package ensemble

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/report"
	"github.com/hcunet/hcunet/train"
)

// history holds the values of the training of a fold, for plots and tables. It is
// part of the state of the run, so that a run that was interrupted still has all
// of it.
type history struct {
	Loss     []float64 // per batch
	Momentum []float64
	Rates    [][]float64 // per layer group
	Phases   []report.Phase
	ValidAt  []int // number of batches before the end of each epoch
	Epochs   []metric.Epoch
}

// hook returns the hook that fills the history.
func (h *history) hook() train.Hook {
	return train.Hook{
		Name: "history", Memory: h,
		PhaseStart: func(p train.Phase) error {
			h.Phases = append(h.Phases, report.Phase{Name: p.Name, Start: len(h.Loss)})
			return nil
		},
		BatchEnd: func(b train.BatchInfo) error {
			h.Loss = append(h.Loss, b.Loss)
			h.Momentum = append(h.Momentum, b.Momentum)
			if h.Rates == nil {
				h.Rates = make([][]float64, len(b.Rates))
			}
			for g, rate := range b.Rates {
				h.Rates[g] = append(h.Rates[g], rate)
			}
			return nil
		},
		EpochEnd: func(e metric.Epoch) error {
			h.Epochs = append(h.Epochs, e)
			h.ValidAt = append(h.ValidAt, len(h.Loss))
			return nil
		},
	}
}

// notes are the parts of a history that are not long lists of numbers.
type notes struct {
	Groups  int            `json:"groups"`
	Phases  []report.Phase `json:"phases"`
	ValidAt []int          `json:"valid_at"`
	Epochs  []metric.Epoch `json:"epochs"`
}

const notesKey = "notes"

// State implements train.Memory.
func (h *history) State() (*checkpoint.File, error) {
	b, err := json.Marshal(notes{len(h.Rates), h.Phases, h.ValidAt, h.Epochs})
	if err != nil {
		return nil, err
	}
	f := &checkpoint.File{Metadata: map[string]string{notesKey: string(b)}}
	for i, list := range append([][]float64{h.Loss, h.Momentum}, h.Rates...) {
		data := make([]byte, 0, 8*len(list))
		for _, v := range list {
			data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
		}
		f.Tensors = append(f.Tensors, checkpoint.Tensor{Name: fmt.Sprint(i), DType: checkpoint.F64, Shape: []int{len(list)}, Data: data})
	}
	return f, nil
}

// SetState implements train.Memory.
func (h *history) SetState(f *checkpoint.File) error {
	var n notes
	if err := json.Unmarshal([]byte(f.Metadata[notesKey]), &n); err != nil {
		return fmt.Errorf("the history of a run: %w", err)
	}
	if n.Groups < 0 || n.Groups > len(f.Tensors) {
		return fmt.Errorf("the history of a run: %d layer groups in %d lists", n.Groups, len(f.Tensors))
	}
	lists := make([][]float64, 2+n.Groups)
	for i := range lists {
		t, ok := f.Lookup(fmt.Sprint(i))
		if !ok {
			return fmt.Errorf("the history of a run: list %d is missing", i)
		}
		var err error
		if lists[i], err = t.Float64s(); err != nil {
			return fmt.Errorf("the history of a run: %w", err)
		}
	}
	*h = history{Loss: lists[0], Momentum: lists[1], Phases: n.Phases, ValidAt: n.ValidAt, Epochs: n.Epochs}
	if n.Groups > 0 {
		h.Rates = lists[2:]
	}
	return nil
}

// plot draws losses and schedule.
func (h *history) plot(o *folder, f int) error {
	valid := make([]float64, len(h.Epochs))
	for i, e := range h.Epochs {
		valid[i] = e.Value(metric.ValidLoss)
	}
	loss := report.LossHistory{Train: h.Loss, ValidAt: h.ValidAt, Valid: valid, Phases: h.Phases}
	if err := report.LossPlot(o.path("loss_fold%d.png", f), fmt.Sprintf("Fold %d, loss", f), loss); err != nil {
		return err
	}
	return report.SchedulePlot(o.path("rates_fold%d.png", f), fmt.Sprintf("Fold %d, schedule", f), h.Rates, h.Momentum, h.Phases)
}

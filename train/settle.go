package train

import (
	"context"
	"fmt"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
)

// Settle measures the running statistics of all batch norms again, over one epoch
// of a source. It is for weights that were averaged, whose statistics do not fit
// them. Nothing is trained.
//
// Source: torch.optim.swa_utils.update_bn of PyTorch 1.13.
func (l *Learner) Settle(ctx context.Context, source feed.Source) error {
	if !l.busy.TryLock() {
		return ErrBusy
	}
	defer l.busy.Unlock()
	var norms []*nn.BatchNorm2d
	var momenta []float64
	nn.Each(l.model, func(m nn.Module) {
		if bn, ok := m.(*nn.BatchNorm2d); ok {
			norms, momenta = append(norms, bn), append(momenta, bn.Momentum)
		}
	})
	defer func() {
		for i, bn := range norms {
			bn.Momentum = momenta[i]
		}
	}()
	number := 0
	for b, err := range source.Epoch(l.at.Epoch, 0) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = l.checkBatch(b, false)
		}
		if err == nil {
			for _, bn := range norms {
				bn.Momentum = 1 / float64(number+1) // 1 discards the old statistics; then they become the mean of the batches
			}
			err = l.inScope(b, func() {
				nn.NoGrad(func() { l.scores(nn.Train, l.input.images(l.input.upload(b))) })
			})
		}
		if err != nil {
			return fmt.Errorf("train: measuring running statistics, batch %d: %w", number, err)
		}
		number++
	}
	return nil
}

package train

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// A Prediction is the result for one image of a source. With softmax it has the
// probabilities of all classes, with sigmoids those of all classes but the
// background. The receiver may keep Prob. Target is nil if it is not known; it is
// valid only during the call.
type Prediction struct {
	Index int // of the image in the source
	metric.Image
}

// Class returns the probabilities of a class, row-major.
func (p *Prediction) Class(class uint8) []float32 {
	area := p.Width * p.Height
	at := (int(class) - p.First) * area
	return p.Prob[at : at+area : at+area]
}

// A Flip says whether a prediction is averaged over an image and its mirror image.
type Flip bool

const (
	NoFlip      Flip = false
	FlipAverage Flip = true // as in the notebook
)

// Predict computes the probabilities of every image of a source, in its order, and
// calls each with them. An error of each ends the work. Any number of goroutines
// may call Predict at once, but during Fit it returns [ErrBusy].
//
// FlipAverage takes the mean of the probabilities of an image and of its mirror
// image, mirrored back. If mirroring changes the classes, such as a left and a
// right lung, use NoFlip.
func (l *Learner) Predict(ctx context.Context, source feed.Source, flip Flip, each func(*Prediction) error) error {
	if !l.busy.TryRLock() {
		return ErrBusy
	}
	defer l.busy.RUnlock()
	done := 0
	err := l.scoreBatches(ctx, source, 0, func(b *feed.Batch, number, first int) (scored, error) {
		s, err := l.predict(b, flip)
		if err != nil {
			err = fmt.Errorf("train: predicting batch %d, images from %d on: %w", number, first, err)
		}
		return s, err
	}, func(b *feed.Batch, s scored) error {
		done += b.N
		return l.eachImage(source, b, s.prob, done-b.N, each)
	})
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, cause) {
		return &cancelled{fmt.Sprintf("prediction, after %d images", done), cause}
	}
	return err
}

// predict returns the probabilities of a batch (N, K, H, W).
func (l *Learner) predict(b *feed.Batch, flip Flip) (s scored, err error) {
	s.loss = math.NaN()
	if err := l.checkBatch(b, false); err != nil {
		return s, err
	}
	s.later, err = l.predictions.repeat(l, b, flip)
	if err == nil && s.later == nil {
		err = l.inScope(b, func() { s.prob = slice(l.average(l.input.upload(b), flip)) })
	}
	return s, err
}

// average returns the probabilities of uploaded images, with flip the mean of those of the
// images and of their mirror images.
func (l *Learner) average(images torch.Tensor, flip Flip) (p torch.Tensor) {
	nn.NoGrad(func() {
		x := l.input.images(images)
		p = l.probabilities(l.scores(nn.Eval, x))
		if flip {
			mirrored := l.probabilities(l.scores(nn.Eval, nn.FlipLR(x)))
			p = nn.MulScalar(nn.Add(p, nn.FlipLR(mirrored)), 0.5)
		}
	})
	return p
}

// probabilities returns the softmax or the sigmoid of scores (N, K, H, W).
func (l *Learner) probabilities(scores torch.Tensor) torch.Tensor {
	if l.task.Output == data.Sigmoid {
		return nn.Sigmoid(scores)
	}
	return nn.Softmax(scores, 1)
}

// eachImage calls each for every image of a batch. If the batch has no indices,
// its first image has the number first in the source.
func (l *Learner) eachImage(source feed.Source, b *feed.Batch, prob []float32, first int, each func(*Prediction) error) error {
	area := b.H * b.W
	size := l.task.Outputs() * area
	for i := range b.N {
		p := &Prediction{Index: first + i}
		if b.Indices != nil {
			p.Index = b.Indices[i]
		}
		p.Image = metric.Image{Name: source.Name(p.Index), Width: b.W, Height: b.H, Prob: prob[i*size : (i+1)*size : (i+1)*size]}
		if l.task.Output == data.Sigmoid {
			p.First = 1
		}
		if b.Targets != nil {
			p.Target = b.Targets[i*area : (i+1)*area]
		}
		if err := each(p); err != nil {
			return err
		}
	}
	return nil
}

// scoreAll returns the mean loss over all images of a source, and the metrics.
func (r *run) scoreAll(ctx context.Context, valid feed.Source) (metric.Values, error) {
	for _, m := range r.parts.Metrics {
		m.Reset()
	}
	var losses metric.Mean
	number, first := 0, 0
	err := r.scoreBatches(ctx, valid, r.Learner.at.Epoch, func(b *feed.Batch, _, _ int) (s scored, err error) {
		if err := r.checkBatch(b, true); err != nil {
			return s, err
		}
		err = r.inScope(b, func() {
			nn.NoGrad(func() {
				scores := r.scores(nn.Eval, r.input.images(r.input.upload(b)))
				s.loss = item(r.loss.Forward(scores, r.input.classes(r.input.uploadTargets(b))))
				s.prob = slice(r.probabilities(scores))
			})
		})
		if err == nil && !finite(s.loss) {
			err = fmt.Errorf("%s: %w", films(valid, b), &badNumber{"the loss", s.loss})
		}
		return s, err
	}, func(b *feed.Batch, s scored) error {
		r.accumulator.beginBatch(&r.at.Gathered, b.N, false)
		losses.Add(s.loss, b.N)
		number++
		first += b.N
		return r.eachImage(valid, b, s.prob, first-b.N, r.measure)
	})
	if err != nil {
		return nil, r.fail(ctx, "validation, ", number, err)
	}
	values := metric.Values{{Name: metric.ValidLoss, Value: losses.Value()}}
	for _, m := range r.parts.Metrics {
		values = append(values, m.Values()...)
	}
	return values, nil
}

// measure passes a validation image to the metrics.
func (r *run) measure(p *Prediction) error {
	for _, m := range r.parts.Metrics {
		if err := m.Add(&p.Image); err != nil {
			return err
		}
	}
	return nil
}

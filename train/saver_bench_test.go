package train_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
)

// What saving costs at the default period: an operation is a batch of two images of
// 32x32 of the notebook's network. The first state comes after two minutes: -benchtime
// 400x or so.
func BenchmarkSaver(b *testing.B) {
	nn.Scope(func() {
		in := nn.NewInit(nn.CPU, 1)
		saver := &train.Saver{Path: filepath.Join(b.TempDir(), "state")}
		hook := saver.Hook()
		saves, spent := 0, time.Duration(0)
		timed := train.Hook{Pause: func(l *train.Learner) error {
			start := time.Now()
			err := hook.Pause(l)
			if took := time.Since(start); took > 50*time.Millisecond { // reading the clock alone takes less
				saves, spent = saves+1, spent+took
			}
			return err
		}}
		l := learner(b, unet.New(in, resnet.New34(in, 3), 2, unet.Config{}), mean(4, 0), timed)
		films, held := formulaBatches("saver", 1, 2, 32, 0.6), formulaBatches("held", 1, 2, 32, 0.6)
		for len(films) < b.N {
			films = append(films, films[0])
		}
		b.ResetTimer()
		start := time.Now()
		_, err := l.Fit(b.Context(), films, held, train.Phase{Epochs: 1, Rates: train.SameRates(1e-4, 3)})
		require.NoError(b, err)
		all := time.Since(start)
		b.ReportMetric(float64(saves), "saves")
		b.ReportMetric(spent.Seconds()/float64(max(saves, 1)), "s/save")
		b.ReportMetric(100*spent.Seconds()/all.Seconds(), "%-of-time")
	})
}

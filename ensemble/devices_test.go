package ensemble_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/hcunet/hcunet/ensemble"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// Folds that are trained in separate processes, two at a time, and then gathered give the
// same bytes as a run in one process. A fold that fails ends the run, and the run can be
// continued.
func TestTrainApart(t *testing.T) {
	c := small(ensemble.Default, blobs(t, 12, 2))
	c.Folds.Number = 3
	whole, apart := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "apart")
	run(t, c, ensemble.Options{Out: whole, Fold: -1})

	opt := ensemble.Options{Out: apart, Fold: -1}
	var bad atomic.Bool
	bad.Store(true)
	train := func(fold int, device nn.Device) []string {
		opt := opt
		opt.Fold, opt.Device = fold, device
		if fold == 2 && bad.Load() { // it starts after another fold, which has made the folder
			opt.Workers = -1
		}
		text, err := json.Marshal(childRun{c, opt})
		require.NoError(t, err)
		return []string{"env", childVariable + "=" + string(text), os.Args[0]}
	}
	two := []nn.Device{nn.CPU, nn.CPU}
	err := ensemble.TrainApart(t.Context(), c, opt, two, train)
	require.Regexp(t, `^dist: fold 2 on device \d \(cpu\) ended with exit status 1$`, err)
	require.NoFileExists(t, filepath.Join(apart, "fold2.json"))

	bad.Store(false)
	opt.Resume = true
	stopped, stop := context.WithCancel(t.Context())
	stop()
	var interrupted *ensemble.Interrupted
	require.ErrorAs(t, ensemble.TrainApart(stopped, c, opt, two, train), &interrupted)
	require.NoError(t, ensemble.TrainApart(t.Context(), c, opt, two, train))
	opt.Gather = true
	run(t, c, opt)
	requireSame(t, files(t, whole), files(t, apart))

	opt.Gather, opt.Resume = false, false
	err = ensemble.TrainApart(t.Context(), c, opt, two, train)
	require.EqualError(t, err, fmt.Sprintf("the output folder %s holds a run already; continue it with -resume, or choose another folder", apart))
}

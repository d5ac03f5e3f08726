package ensemble_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/ensemble"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/stretchr/testify/require"
)

// dieVariable is the environment variable with the time after which rank 1 kills itself.
const dieVariable = "HCUNET_TEST_DIE"

// runTogether calls ensemble.Run, as one of several processes if a launcher started it.
func runTogether(c childRun) error {
	cfg, several, err := dist.FromEnviron(os.Getenv)
	if err != nil {
		return err
	}
	if !several {
		fmt.Println(begins)
	} else {
		if c.Options.Group, err = dist.Open(cfg); err != nil {
			return err
		}
		defer c.Options.Group.Close()
		if d, err := time.ParseDuration(os.Getenv(dieVariable)); err == nil && cfg.Rank == 1 {
			time.AfterFunc(d, func() {
				if p, err := os.FindProcess(os.Getpid()); err == nil {
					_ = p.Kill()
				}
			})
		}
	}
	_, err = ensemble.Run(context.Background(), c.Config, c.Options)
	if c.Options.Group != nil {
		c.Options.Group.Fail(err)
	}
	return err
}

// Two processes train every fold together. If one is killed, the other one ends by itself.
// After the job was continued, it gives the same bytes as a job without interruption.
func TestRanksKilled(t *testing.T) {
	golden.Processes(t, dist.Available(false))
	c := small(ensemble.Default, blobs(t, 10, 2))
	c.Training.MicroBatches, c.Training.SyncBatchNorm = 2, true
	c.Phases = ensemble.NotebookPhases(2, 1, 1e-2, false)
	launch := func(opt ensemble.Options) error {
		text, err := json.Marshal(childRun{c, opt})
		require.NoError(t, err)
		t.Setenv(childVariable, string(text))
		return dist.Launch(t.Context(), 2, []string{os.Args[0]}, &dist.LaunchOptions{Grace: 30 * time.Second})
	}
	t.Setenv("HCUNET_TIMEOUT", "1h") // so that the other process ends because of the death, not of a timeout
	whole, killed := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "killed")
	start := time.Now()
	require.NoError(t, launch(ensemble.Options{Out: whole, Fold: -1, SaveEvery: time.Nanosecond}))
	took := time.Since(start)

	deaths := 0
	for share := 0.3; share < 0.9; share += 0.2 {
		t.Setenv(dieVariable, time.Duration(share*float64(took)).String())
		_, err := os.Stat(filepath.Join(killed, "config.json"))
		err = launch(ensemble.Options{Out: killed, Fold: -1, SaveEvery: time.Nanosecond, Resume: err == nil})
		if err == nil {
			break // the rest of the run took less time
		}
		deaths++
		require.ErrorContains(t, err, "rank 1 of 2 ended with signal: killed")
	}
	require.Positive(t, deaths)
	t.Setenv(dieVariable, "")
	if _, err := os.Stat(filepath.Join(killed, "submission.csv")); err != nil {
		require.NoError(t, launch(ensemble.Options{Out: killed, Fold: -1, SaveEvery: time.Nanosecond, Resume: true}))
	}
	requireSame(t, files(t, whole), files(t, killed))
}

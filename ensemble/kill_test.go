package ensemble_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hcunet/hcunet/ensemble"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// childVariable is the environment variable with the childRun of a child process, as JSON.
const childVariable = "HCUNET_TEST_RUN"

type childRun struct {
	Config  ensemble.Config
	Options ensemble.Options
}

// TestMain makes the test binary a program that trains if childVariable is set, so that
// tests can kill it. All runs have one thread: the networks are too small for several, and
// the results depend on the number of threads in their last bits.
func TestMain(m *testing.M) {
	err := nn.SetThreads(1)
	text := os.Getenv(childVariable)
	if err == nil && text == "" {
		os.Exit(m.Run())
	}
	var c childRun
	if err == nil {
		err = json.Unmarshal([]byte(text), &c)
	}
	if err == nil {
		err = runTogether(c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// begins is the line that a child prints when it has started and its run begins.
const begins = "begins"

// child starts a process that runs an ensemble, and returns when its run begins.
func child(t *testing.T, c ensemble.Config, opt ensemble.Options) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(childRun{c, opt})
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, begins+"\n", line)
	return cmd
}

// Runs are killed at 20 random times, during a step or while writing, and continued each
// time. The last one ends with the same bytes as a run without interruption.
func TestKilled(t *testing.T) {
	c := small(ensemble.Default, blobs(t, 6, 2))
	c.Batch, c.Training.MicroBatches = 2, 2 // so that some kills come in the middle of an accumulated step
	c.Phases = ensemble.NotebookPhases(1, 1, 1e-2, false)
	dir := t.TempDir()
	whole, killed := filepath.Join(dir, "whole"), filepath.Join(dir, "killed")
	alone := child(t, c, ensemble.Options{Out: whole, Fold: -1, SaveEvery: time.Nanosecond})
	start := time.Now()
	require.NoError(t, alone.Wait())
	took := time.Since(start)

	r := rand.New(rand.NewPCG(2, 3))
	opt := ensemble.Options{Out: killed, Fold: -1, SaveEvery: time.Nanosecond} // saves a state after every batch
	writing, resumed := 0, 0
	for kills := 0; kills < 20; {
		_, err := os.Stat(filepath.Join(killed, "config.json"))
		opt.Resume = err == nil
		cmd := child(t, c, opt)
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			require.NoError(t, err)
			require.NoError(t, os.RemoveAll(killed)) // the run has ended: start another one
		case <-time.After(time.Duration(r.Float64() * float64(took) / 4)): // so that most runs are killed several times
			require.NoError(t, cmd.Process.Kill())
			var exit *exec.ExitError
			if err := <-done; err == nil || !errors.As(err, &exit) {
				require.NoError(t, err)
			}
			kills++
			if opt.Resume {
				resumed++
			}
			for _, pattern := range []string{".*.tmp", "state/*/.*.tmp"} {
				unfinished, err := filepath.Glob(filepath.Join(killed, pattern))
				require.NoError(t, err)
				writing += len(unfinished)
			}
		}
	}
	t.Logf("a run takes %v; killed 20 times, %d of them while a file was written, %d of them when it had gone on", took, writing, resumed)
	_, err := os.Stat(filepath.Join(killed, "config.json"))
	opt.Resume = err == nil
	require.NoError(t, child(t, c, opt).Wait())
	requireSame(t, files(t, whole), files(t, killed))
	for _, pattern := range []string{".*.tmp", "state/*/.*.tmp", "state/*/*.safetensors*"} {
		left, err := filepath.Glob(filepath.Join(killed, pattern))
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

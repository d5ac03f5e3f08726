package train_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// TestMain sets one thread, because the networks of these tests are so small that two
// threads wait for each other longer than they compute, above all on a busy machine. With
// ranksVariable in the environment the test binary is a process of TestRanks instead.
func TestMain(m *testing.M) {
	if _, set := os.LookupEnv("OMP_NUM_THREADS"); !set {
		if err := nn.SetThreads(1); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	path := os.Getenv(ranksVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	if err := ranksMain(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// allThreads sets one thread for each core, for a test of a large network. The returned
// function restores the number of threads.
func allThreads(t *testing.T) (back func()) {
	t.Helper()
	before := nn.Threads()
	require.NoError(t, nn.SetThreads(runtime.NumCPU()))
	return func() { require.NoError(t, nn.SetThreads(before)) }
}

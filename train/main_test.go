package train_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// One thread: the networks of these tests are so small that two wait for each other
// longer than they work, above all on a machine that does other things as well.
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

// allThreads gives a test of a large network a thread a core, until what it returns
// is called.
func allThreads(t *testing.T) (back func()) {
	t.Helper()
	before := nn.Threads()
	require.NoError(t, nn.SetThreads(runtime.NumCPU()))
	return func() { require.NoError(t, nn.SetThreads(before)) }
}

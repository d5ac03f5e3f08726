package usage

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInterruptible(t *testing.T) {
	var said atomic.Int32
	for range 100 {
		_, stop := Interruptible(func() { said.Add(1) })
		stop()
	}
	time.Sleep(10 * time.Millisecond)
	require.Zero(t, said.Load(), "an end is not an interruption")

	if runtime.GOOS == "windows" {
		t.Skip("a process cannot interrupt itself there")
	}
	told := make(chan bool, 1)
	ctx, stop := Interruptible(func() { told <- true })
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, self.Signal(os.Interrupt))
	require.True(t, <-told)
	require.Error(t, ctx.Err())
}

package usage

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Interruptible returns a context that is done at the first Ctrl-C or SIGTERM. say, if
// it is not nil, is called then to tell the user. The second one ends the program at
// once. The program must call stop when its work is done.
func Interruptible(say func()) (ctx context.Context, stop func()) {
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	forget := context.AfterFunc(ctx, func() {
		release()
		if say != nil {
			say()
		}
	})
	return ctx, func() {
		forget() // otherwise say would be called without an interruption
		release()
	}
}

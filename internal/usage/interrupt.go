package usage

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Interruptible returns a context that is done at the first Ctrl-C or SIGTERM, of which
// say, if it is not nil, may tell; the second one ends the program at once. The program
// calls stop when it is done.
func Interruptible(say func()) (ctx context.Context, stop func()) {
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	forget := context.AfterFunc(ctx, func() {
		release()
		if say != nil {
			say()
		}
	})
	return ctx, func() {
		forget() // or it would be told of an interruption that there was not
		release()
	}
}

//go:build !unix

package checkpoint

import (
	"context"
	"os"
)

// lockFile does nothing where there is no flock: two downloads at once spoil
// each other's partial file, and the hash finds it.
func lockFile(context.Context, *os.File) error { return nil }

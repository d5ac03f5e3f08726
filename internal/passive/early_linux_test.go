//go:build cgo

package passive

import "testing"

// Without a call of Restart, too.
func TestEarly(t *testing.T) { restarts(t, "early") }

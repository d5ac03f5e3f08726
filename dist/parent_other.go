//go:build !linux

package dist

import "os/exec"

// dieWithParent does nothing on systems whose kernel cannot do this.
func dieWithParent(*exec.Cmd) {}

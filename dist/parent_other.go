//go:build !linux

package dist

import "os/exec"

// dieWithParent does nothing where the kernel offers no such bond.
func dieWithParent(*exec.Cmd) {}

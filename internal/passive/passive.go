// Package passive has the idle threads of a program that uses libtorch sleep. Those
// of OpenMP spin for a while before they do, which takes the cores from the other
// threads and programs that want them.
package passive

import (
	"os"
	"syscall"
)

const policy = "OMP_WAIT_POLICY"

// Restart begins the program again, as the same process with the same arguments, with
// OMP_WAIT_POLICY=passive in its environment: OpenMP reads it before main. It returns
// where the environment says already how threads are to wait, and where a process
// cannot be replaced, as on Windows. A program calls it first of all.
func Restart() {
	if _, said := os.LookupEnv(policy); said {
		return
	}
	program, err := os.Executable()
	if err != nil {
		return // the program works, but slower on a busy machine
	}
	syscall.Exec(program, os.Args, append(os.Environ(), policy+"=passive"))
}

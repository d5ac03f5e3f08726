// Package passive has the idle threads of a program that uses libtorch sleep. Those
// of OpenMP and OpenBLAS spin for a while before they do, which takes the cores from
// the other threads and programs that want them.
package passive

import (
	"os"
	"syscall"
)

const policy = "OMP_WAIT_POLICY"

// OpenBLAS's threads call sched_yield for 2 to the power of this many clock cycles
// before they sleep: 4 to 30, and 26 by default (driver/others/blas_server.c).
const timeout = "OPENBLAS_THREAD_TIMEOUT"

// Restart begins the program again, as the same process with the same arguments, with
// OMP_WAIT_POLICY=passive in its environment, which OpenMP reads before main, and the
// shortest OPENBLAS_THREAD_TIMEOUT unless there is one. It returns where the
// environment says already how threads are to wait, and where a process cannot be
// replaced, as on Windows. A program calls it first of all.
func Restart() {
	if _, said := os.LookupEnv(policy); said {
		return
	}
	program, err := os.Executable()
	if err != nil {
		return // the program works, but slower on a busy machine
	}
	env := append(os.Environ(), policy+"=passive")
	if _, said := os.LookupEnv(timeout); !said {
		env = append(env, timeout+"=4")
	}
	syscall.Exec(program, os.Args, env)
}

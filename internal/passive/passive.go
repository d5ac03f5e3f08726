// Package passive makes the idle threads of a program that uses libtorch sleep. By
// default, idle threads of OpenMP and OpenBLAS spin for a while first, which takes
// the cores from other threads and programs.
package passive

import (
	"os"
	"syscall"
)

const policy = "OMP_WAIT_POLICY"

// OpenBLAS's threads call sched_yield for 2 to the power of this many clock cycles
// before they sleep: 4 to 30, and 26 by default (driver/others/blas_server.c).
const timeout = "OPENBLAS_THREAD_TIMEOUT"

// Restart starts the program again, as the same process with the same arguments,
// because OpenMP reads its environment before main. It sets OMP_WAIT_POLICY=passive
// and, unless it is set, the shortest OPENBLAS_THREAD_TIMEOUT. It returns without a
// restart if OMP_WAIT_POLICY is set already, or if a process cannot be replaced, as
// on Windows. A program should call it first.
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

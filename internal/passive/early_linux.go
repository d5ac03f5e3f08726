//go:build cgo

package passive

/*
#include <alloca.h>
#include <string.h>
#include <unistd.h>

static const char policy[] = "OMP_WAIT_POLICY=", timeout[] = "OPENBLAS_THREAD_TIMEOUT=";

// The dynamic linker calls the functions of .preinit_array when all libraries are in
// memory but before it initializes any. Libtorch's initialization takes half a second,
// which a later restart would pay for a second time. The C library is not initialized
// either: here nothing but system calls and string functions works.
static void restart(int argc, char **argv, char **env) {
	int n = 0, said = 0;
	for (; env[n]; n++) {
		if (!strncmp(env[n], policy, sizeof policy - 1)) return;
		if (!strncmp(env[n], timeout, sizeof timeout - 1)) said = 1;
	}
	char **more = alloca((n + 3) * sizeof *more);
	memcpy(more, env, n * sizeof *more);
	more[n++] = "OMP_WAIT_POLICY=passive";
	if (!said) more[n++] = "OPENBLAS_THREAD_TIMEOUT=4";
	more[n] = 0;
	execve("/proc/self/exe", argv, more); // Restart tries again where this fails
}
__attribute__((section(".preinit_array"), used)) static void (*before)(int, char **, char **) = restart;
*/
import "C"

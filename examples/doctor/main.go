// Command doctor says in a screen what the installation is, computes something whose
// answer is known, and says what to do about what is wrong. It then exits with 1.
package main

import (
	"fmt"
	"os"

	"github.com/hcunet/hcunet/internal/doctor"
)

func main() {
	well, err := doctor.Write(os.Stdout, doctor.Examine())
	if err != nil {
		fmt.Fprintln(os.Stderr, "doctor:", err)
	}
	if !well || err != nil {
		os.Exit(1)
	}
}

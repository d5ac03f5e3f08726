// Command doctor prints what is installed on one screen, runs a computation with a
// known result, and says how to repair what is wrong. If anything is wrong, it exits
// with status 1.
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

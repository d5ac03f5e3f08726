// Command checkpoint reads a checkpoint in any of the formats that package
// checkpoint reads, and writes it as safetensors. check.py in this folder
// compares both with PyTorch.
//
//	go run ./scripts/checkpoint IN.pth OUT.safetensors [SUBTREE]
package main

import (
	"fmt"
	"os"

	"github.com/hcunet/hcunet/checkpoint"
)

func main() {
	if len(os.Args) < 3 || len(os.Args) > 4 {
		fmt.Fprintln(os.Stderr, "usage: checkpoint IN OUT.safetensors [SUBTREE]")
		os.Exit(2)
	}
	if err := convert(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func convert(in, out string, subtree []string) error {
	var f *checkpoint.File
	var err error
	if len(subtree) == 1 {
		f, err = checkpoint.OpenTorch(in, &checkpoint.TorchOptions{Subtree: subtree[0]})
	} else {
		f, err = checkpoint.Open(in)
	}
	if err != nil {
		return err
	}
	if f.Metadata == nil {
		f.Metadata = map[string]string{"format": "pt"}
	}
	return checkpoint.SaveSafetensors(out, f)
}

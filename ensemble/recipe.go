package ensemble

import "fmt"

// A Recipe is one of two ways to train.
type Recipe int

const (
	Default Recipe = iota // the system without its accidents: [train.Default]
	Kernel                // the system as the notebook ran it: [train.Kernel]
)

// ParseRecipe reads "default" or "kernel".
func ParseRecipe(s string) (Recipe, error) {
	switch s {
	case "default":
		return Default, nil
	case "kernel":
		return Kernel, nil
	}
	return 0, fmt.Errorf("recipe %q, wanted default or kernel", s)
}

func (r Recipe) String() string {
	if r == Kernel {
		return "kernel"
	}
	return "default"
}

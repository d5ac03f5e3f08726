// Package usage prints the help of a command: how to call it, examples, and its
// flags in groups. It also lets a command stop in an orderly way at Ctrl-C.
package usage

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// A Group is a group of flags with a heading.
type Group struct {
	Heading string
	Flags   []string // names
}

// Text is the help text of a command.
type Text struct {
	Line     string   // "prepare -images FOLDER ... -out FOLDER"
	About    string   // a sentence or two
	Examples []string // commands
	Groups   []Group  // flags in no group come last

	Arguments bool // arguments may follow the flags
}

// Parse parses the arguments of a command. For a wrong flag it returns an error
// of one line. For -h it writes the help to w and returns flag.ErrHelp.
func Parse(flags *flag.FlagSet, args []string, w io.Writer, text Text) error {
	flags.SetOutput(io.Discard)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		if err := write(w, flags, text); err != nil {
			return err
		}
		return flag.ErrHelp
	case err != nil:
		return fmt.Errorf("%w; see -h", err)
	case flags.NArg() > 0 && !text.Arguments:
		return fmt.Errorf("unknown argument %q; see -h", flags.Arg(0))
	}
	return nil
}

// Exit ends a command that failed: it prints one line with the name of the
// command and the error on standard error, and exits with status 1. It returns
// if err is nil or flag.ErrHelp.
func Exit(command string, err error) {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, command+":", strings.TrimPrefix(err.Error(), command+": "))
	os.Exit(1)
}

func write(w io.Writer, flags *flag.FlagSet, text Text) error {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s\n\n%s\n", text.Line, text.About)
	if len(text.Examples) > 0 {
		fmt.Fprintf(&b, "\nexamples:\n  %s\n", strings.Join(text.Examples, "\n  "))
	}
	shown := map[string]bool{}
	group := func(heading string, names []string) {
		some := flag.NewFlagSet("", flag.ContinueOnError)
		some.SetOutput(&b)
		for _, name := range names {
			if f := flags.Lookup(name); f != nil && !shown[name] {
				shown[name] = true
				some.Var(f.Value, f.Name, f.Usage)
				some.Lookup(f.Name).DefValue = f.DefValue
			}
		}
		fmt.Fprintf(&b, "\n%s:\n", heading)
		some.PrintDefaults()
	}
	for _, g := range text.Groups {
		group(g.Heading, g.Flags)
	}
	var rest []string
	flags.VisitAll(func(f *flag.Flag) {
		if !shown[f.Name] {
			rest = append(rest, f.Name)
		}
	})
	if len(rest) > 0 {
		group("other flags", rest)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Numbers reads numbers that are separated by commas, such as 0,2.
func Numbers(s string) (numbers []int, err error) {
	for _, word := range strings.Split(s, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is not a number; wanted numbers such as 0,2", word)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

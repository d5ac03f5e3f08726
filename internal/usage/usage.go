// Package usage prints the help of a command: how it is called, examples, and its
// flags in groups; and stops a command in order at Ctrl-C.
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

// A Group is some flags under a heading.
type Group struct {
	Heading string
	Flags   []string // names
}

// Text is what a command says of itself.
type Text struct {
	Line     string   // "prepare -images FOLDER ... -out FOLDER"
	About    string   // a sentence or two
	Examples []string // commands
	Groups   []Group  // of all flags; those in none come last

	Arguments bool // something may follow the flags
}

// Parse parses a command's arguments. A wrong flag is an error of one line; -h
// writes the help to w, and Parse returns flag.ErrHelp.
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

// Exit ends a command: well where its error is nil or flag.ErrHelp, else with one
// line on standard error, which begins with the command's name.
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

// Numbers reads numbers with commas between them, such as 0,2.
func Numbers(s string) (numbers []int, err error) {
	for _, word := range strings.Split(s, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is no number; wanted some such as 0,2", word)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

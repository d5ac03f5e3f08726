package usage

import (
	"flag"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	text := Text{
		Line: "draw -n NUMBER", About: "Command draw draws.", Examples: []string{"draw -n 3", "draw -n 4"},
		Groups: []Group{{"what", []string{"n", "colour"}}},
	}
	flags := func() (*flag.FlagSet, *int) {
		f := flag.NewFlagSet("draw", flag.ContinueOnError)
		n := f.Int("n", 2, "`number` of lines")
		f.Bool("v", false, "say more")
		f.Bool("colour", true, "in colours")
		return f, n
	}
	f, n := flags()
	require.NoError(t, Parse(f, []string{"-n", "7"}, nil, text))
	require.Equal(t, 7, *n)

	f, _ = flags()
	var b strings.Builder
	require.ErrorIs(t, Parse(f, []string{"-h"}, &b, text), flag.ErrHelp)
	require.Equal(t, `usage: draw -n NUMBER

Command draw draws.

examples:
  draw -n 3
  draw -n 4

what:
  -colour
    	in colours (default true)
  -n number
    	number of lines (default 2)

other flags:
  -v	say more
`, b.String())

	f, _ = flags()
	require.EqualError(t, Parse(f, []string{"-n", "x"}, nil, text), `invalid value "x" for flag -n: parse error; see -h`)
	f, _ = flags()
	require.EqualError(t, Parse(f, []string{"x"}, nil, text), `unknown argument "x"; see -h`)
}

func TestNumbers(t *testing.T) {
	n, err := Numbers("2,0,11")
	require.NoError(t, err)
	require.Equal(t, []int{2, 0, 11}, n)
	for _, s := range []string{"", "1,", "a", "-1", "1 2"} {
		_, err := Numbers(s)
		require.ErrorContains(t, err, "is not a number; wanted numbers such as 0,2")
	}
}

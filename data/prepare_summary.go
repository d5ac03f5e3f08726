package data

import (
	"fmt"
	"io"
	"strings"
)

// WriteTo writes the summary as text: what is in the folder, its statistics, and
// every film that is not there.
func (s *Summary) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d training films, %d with a mask; %d test films", s.Out, s.Train, s.Positive, s.Test)
	if s.Kept > 0 {
		fmt.Fprintf(&b, " (%d were there already)", s.Kept)
	}
	b.WriteString("\n")
	if s.Train > 0 {
		fmt.Fprintf(&b, "statistics: mean %.4f, standard deviation %.4f (%s)\n", s.Statistics.Mean, s.Statistics.Std, StatisticsFile)
	}
	if n := len(s.Missing); n > 0 {
		fmt.Fprintf(&b, "%s no film: %s\n", count(n, "label has", "labels have"), some(s.Missing, 5))
	}
	list := func(what string, names []string) {
		if len(names) > 0 {
			fmt.Fprintf(&b, "%s:\n  %s\n", what, strings.Join(names, "\n  "))
		}
	}
	list(count(len(s.Warnings), "row is suspicious", "rows are suspicious"), s.Warnings)
	list(count(len(s.Unlabelled), "film has no label", "films have no label"), s.Unlabelled)
	list(count(len(s.Vanished), "mask is", "masks are")+" too small for this size and became empty", s.Vanished)
	failed := make([]string, len(s.Failed))
	for i, f := range s.Failed {
		failed[i] = fmt.Sprintf("%s: %v", f.Path, f.Err)
	}
	list(count(len(failed), "film was", "films were")+" left out", failed)
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// count returns "1 film", "2 films".
func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

package prepare

import (
	"fmt"
	"io"
	"strings"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/internal/words"
)

// WriteTo writes the summary as text: what is in the folder, its statistics, and
// the films that were left out.
func (s *Summary) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d training films, %d with a mask; %d test films", s.Out, s.Train, s.Positive, s.Test)
	if s.Kept > 0 {
		fmt.Fprintf(&b, " (%d were there already)", s.Kept)
	}
	b.WriteString("\n")
	if s.Statistics.Mean != nil {
		fmt.Fprintf(&b, "statistics: mean %.4f, standard deviation %.4f (%s)\n", s.Statistics.Mean, s.Statistics.Std, data.StatisticsFile)
	}
	if n := len(s.Missing); n > 0 {
		fmt.Fprintf(&b, "%s no film: %s\n", words.Count(n, "label has", "labels have"), words.Some(s.Missing, 5))
	}
	list := func(what string, names []string) {
		if len(names) > 0 {
			fmt.Fprintf(&b, "%s:\n  %s\n", what, strings.Join(names, "\n  "))
		}
	}
	list(words.Count(len(s.Warnings), "warning", "warnings"), s.Warnings)
	list(words.Count(len(s.Unlabelled), "film has no label", "films have no label"), s.Unlabelled)
	list(words.Count(len(s.Vanished), "mask is", "masks are")+" too small for this size and became empty", s.Vanished)
	failed := make([]string, len(s.Failed))
	for i, f := range s.Failed {
		failed[i] = fmt.Sprintf("%s: %v", f.Path, f.Err)
	}
	list(words.Count(len(failed), "film was", "films were")+" left out", failed)
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

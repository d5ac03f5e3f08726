package report

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/metric"
)

// tenCases are of Dice 2*both/200 for both = 0, 10, ... 90, out of order, and one
// of each kind with an empty mask.
func tenCases() []Case {
	var cases []Case
	for _, i := range []int{3, 0, 9, 1, 8, 2, 7, 4, 6, 5} {
		cases = append(cases, Case{
			Fold: i % 4, Name: fmt.Sprintf("%04d.png", i), Patient: fmt.Sprintf("P%d", i/2), HD95: 10 - float64(i), Surface: 1, Unit: "mm", Threshold: 0.3,
			Overlap: metric.Overlap{Both: 10 * i, Predicted: 100, Target: 100},
		})
	}
	nan := math.NaN()
	return append(cases,
		Case{Name: "empty.png", HD95: nan, Surface: nan},
		Case{Name: "alarm.png", HD95: nan, Surface: nan, Overlap: metric.Overlap{Predicted: 5}},
		Case{Name: "missed.png", HD95: nan, Surface: nan, Overlap: metric.Overlap{Target: 5}},
	)
}

func TestConfuse(t *testing.T) {
	cases := append(tenCases(), Case{Class: "heart", Overlap: metric.Overlap{Target: 1}})
	assert.Equal(t, Confusion{BothEmpty: 1, FalseAlarm: 1, Missed: 1, Found: 10}, Confuse(cases, ""))
	assert.Equal(t, Confusion{Missed: 1}, Confuse(cases, "heart"))
	assert.Equal(t, [][]string{{"nothing there", "1", "1"}, {"something there", "1", "10"}}, Confuse(cases, "").Table().Rows)
}

func TestConfusionLeavesOutWhatIsNot(t *testing.T) {
	assert.Equal(t, [][]string{{"something there", "0", "3"}}, Confusion{Found: 3}.Table().Rows)
	assert.Equal(t, [][]string{{"nothing there", "2", "0"}}, Confusion{BothEmpty: 2}.Table().Rows)
}

func TestExtremes(t *testing.T) {
	cases := tenCases()
	dice := func(order []int) (out []string) {
		for _, i := range order {
			out = append(out, strings.TrimSuffix(cases[i].Name, ".png"))
		}
		return out
	}
	// Those of Dice 0 in their order: 0000, alarm, missed; then 0001 to 0009.
	worst, median, best := Extremes(cases, "", 3)
	assert.Equal(t, []string{"0000", "alarm", "missed"}, dice(worst))
	assert.Equal(t, []string{"0002", "0003", "0004"}, dice(median), "of the six in between, from the second on")
	assert.Equal(t, []string{"0007", "0008", "0009"}, dice(best))
	for n := range 20 {
		worst, median, best := Extremes(cases, "", n)
		seen := map[int]bool{}
		for _, order := range [][]int{worst, median, best} {
			require.LessOrEqual(t, len(order), n)
			for _, i := range order {
				require.False(t, seen[i], "twice")
				require.NotEqual(t, "empty.png", cases[i].Name)
				seen[i] = true
			}
		}
		require.Equal(t, min(3*n, 12), len(seen))
	}
	worst, median, best = Extremes(cases, "absent", 3)
	assert.Empty(t, append(append(worst, median...), best...))
}

func TestCaseTable(t *testing.T) {
	table, shown := caseTable(tenCases())
	assert.Equal(t, 13, shown)
	assert.Equal(t, []string{"case", "patient", "fold", "target px", "predicted px", "Dice", "IoU", "HD95"}, table.Header)
	assert.Equal(t, []string{"0000.png", "P0", "0", "100", "100", "0.000", "0.000", "10.0 mm"}, table.Rows[0])
	assert.Equal(t, []string{"alarm.png", "", "0", "0", "5", "0.000", "0.000", "–"}, table.Rows[1])
	assert.Equal(t, []string{"empty.png", "", "0", "0", "0", "1.000", "1.000", "–"}, table.Rows[12])
	for i, class := range columns(table) {
		assert.Equal(t, i > 1, class == "n", table.Header[i])
	}

	plain, _ := caseTable([]Case{{Name: "a", HD95: math.NaN()}, {Name: "b", Class: "x", HD95: math.NaN()}})
	assert.Equal(t, []string{"case", "class", "fold", "target px", "predicted px", "Dice", "IoU"}, plain.Header)
	_, shown = caseTable(make([]Case, 1000))
	assert.Equal(t, maxPageCases, shown)
}

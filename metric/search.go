package metric

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// SearchOptions say which rules a search tries.
type SearchOptions struct {
	// Thresholds are the thresholds to try, ascending; the table must have
	// them. nil means [Thresholds].
	Thresholds []float64

	// MinSum is the notebook's noise rule for single thresholds; 0 means none.
	// Triplets use MinArea instead.
	MinSum float64

	// MinAreas are the areas to try for triplets, in pixels, ascending; nil means
	// [MinAreas] of the largest image.
	MinAreas []int
}

// MinAreas returns the areas to try for triplets in an image of that many pixels. At
// 1024x1024 they are 0 to 4000 pixels in steps of 250; at other sizes they are scaled
// in proportion. The areas of the challenge's first place, 600 to 2000, lie in this
// range.
func MinAreas(pixels int) []int {
	var areas []int
	for i := range 17 {
		areas = append(areas, int(math.Round(float64(i)*250*float64(pixels)/(1024*1024))))
	}
	return slices.Compact(areas)
}

// A Choice is the rule that a search found, and its scores. Same is the score on the
// cases on which the rule was chosen, so it is too high. Nested is the unbiased estimate:
// for each fold, the same search on the other folds chooses a rule, which is scored on
// this fold. Nested needs two folds or more; with one fold it is zero.
type Choice struct {
	Rule   Rule  `json:"rule"` // for new images
	Same   Parts `json:"same"`
	Nested Parts `json:"nested,omitzero"`

	SameRules   map[int]Rule `json:"same_rules"`             // the rule of each fold in Same
	NestedRules map[int]Rule `json:"nested_rules,omitempty"` // the rule of each fold in Nested
}

// Optimism returns how much higher the score is on the cases on which the rule
// was chosen.
func (c *Choice) Optimism() float64 { return c.Same.Dice - c.Nested.Dice }

// SameRule returns the rule under which a fold was scored in Same. It and NestedRule
// are for [Table.Report].
func (c *Choice) SameRule(fold int) Rule { return c.SameRules[fold] }

// NestedRule returns the rule under which a fold was scored in Nested.
func (c *Choice) NestedRule(fold int) Rule { return c.NestedRules[fold] }

// Choices are the results of three ways to choose a rule from held-out cases.
type Choices struct {
	// PerFold has the best threshold of each fold in SameRules and the mean of these
	// thresholds in Rule, as in the notebook. For Nested, a fold is scored at the mean of
	// the other folds' thresholds, rounded to the nearest threshold of the table.
	PerFold Choice `json:"per_fold"`

	Pooled  Choice `json:"pooled"`  // one threshold, the best of all cases together
	Triplet Choice `json:"triplet"` // the best triplet of all cases together
}

// String returns the choices as a table.
func (c *Choices) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-19s  %-16s  %-18s  %-8s  %s\n", "chosen", "on these images", "on the other folds", "optimism", "for new images")
	for _, row := range []struct {
		name   string
		choice *Choice
	}{{"threshold per fold", &c.PerFold}, {"one threshold", &c.Pooled}, {"triplet", &c.Triplet}} {
		nested, optimism := "-", "-"
		if row.choice.Nested.Images() > 0 {
			nested, optimism = fmt.Sprintf("%.4f", row.choice.Nested.Dice), fmt.Sprintf("%+.4f", row.choice.Optimism())
		}
		fmt.Fprintf(&b, "%-19s  %-16.4f  %-18s  %-8s  %v\n", row.name, row.choice.Same.Dice, nested, optimism, row.choice.Rule)
	}
	return b.String()
}

// Search tries rules for a class on all cases. Of equally good thresholds it chooses
// the lowest, as numpy's argmax does. Of equally good triplets it chooses the one
// with the lowest MinArea, then the lowest Bottom, then the lowest Top. It returns
// an error if the options are wrong or there are no cases.
func (t *Table) Search(class uint8, opt *SearchOptions) (*Choices, error) {
	if opt == nil {
		opt = &SearchOptions{}
	}
	if err := t.checkClass(class); err != nil {
		return nil, err
	}
	s := search{table: t, minSum: opt.MinSum}
	thresholds := opt.Thresholds
	if thresholds == nil {
		thresholds = Thresholds()
	}
	for i, thr := range thresholds {
		at, err := t.onGrid(ThresholdRule(thr, 0))
		if err != nil {
			return nil, err
		}
		if i > 0 && thr < thresholds[i-1] {
			return nil, fmt.Errorf("metric: threshold %d of the search is %v after %v, want ascending ones", i, thr, thresholds[i-1])
		}
		s.thresholds, s.columns = append(s.thresholds, thr), append(s.columns, at.bottom)
	}
	cases, _ := t.snapshot()
	if len(cases) == 0 || len(thresholds) == 0 {
		return nil, fmt.Errorf("metric: a search of %d thresholds over %d cases, want at least one of each", len(thresholds), len(cases))
	}
	pixels := 0
	for _, c := range cases {
		if len(s.folds) == 0 || s.folds[len(s.folds)-1] != c.Fold {
			s.folds = append(s.folds, c.Fold)
			s.cases = append(s.cases, nil)
		}
		last := len(s.folds) - 1
		curve := &c.curves[class-1]
		s.cases[last] = append(s.cases[last], curve)
		pixels = max(pixels, curve.Pixels)
	}
	areas := opt.MinAreas
	if areas == nil {
		areas = MinAreas(pixels)
	}
	if len(areas) == 0 || areas[0] < 0 || !slices.IsSorted(areas) {
		return nil, fmt.Errorf("metric: areas %v of the search, want ascending numbers of pixels", areas)
	}
	perFold, pooled := s.threshold()
	return &Choices{PerFold: perFold, Pooled: pooled, Triplet: s.triplet(areas)}, nil
}

// A search holds the state of one call of Search.
type search struct {
	table      *Table
	thresholds []float64
	columns    []int // their indices in the table
	minSum     float64
	folds      []int // ascending
	cases      [][]*Curve
}

// threshold finds the best threshold of each fold and of all folds together.
func (s *search) threshold() (perFold, pooled Choice) {
	byFold := make([][]tally, len(s.folds)) // [fold][threshold]
	all := make([]tally, len(s.thresholds))
	full := make([]tally, len(s.table.thresholds))
	for f, cases := range s.cases {
		clear(full)
		for _, c := range cases {
			addCurve(full, c, s.minSum)
		}
		byFold[f] = make([]tally, len(s.thresholds))
		for k, column := range s.columns {
			byFold[f][k] = full[column]
			all[k].merge(full[column])
		}
	}

	pooled = newChoice()
	best := bestOf(all)
	pooled.Rule, pooled.Same = ThresholdRule(s.thresholds[best], s.minSum), all[best].parts()

	perFold = newChoice()
	var same, nested, nestedMean tally
	rest := make([]tally, len(all))
	bests := make([]int, len(s.folds))
	for f, fold := range s.folds {
		pooled.SameRules[fold] = pooled.Rule
		bests[f] = bestOf(byFold[f])
		perFold.SameRules[fold] = ThresholdRule(s.thresholds[bests[f]], s.minSum)
		same.merge(byFold[f][bests[f]])

		if len(s.folds) < 2 {
			continue
		}
		for k := range rest {
			rest[k] = all[k].without(byFold[f][k])
		}
		k := bestOf(rest)
		pooled.NestedRules[fold] = ThresholdRule(s.thresholds[k], s.minSum)
		nested.merge(byFold[f][k])
	}
	perFold.Rule = ThresholdRule(s.meanThreshold(bests, -1), s.minSum)
	perFold.Same = same.parts()
	if len(s.folds) > 1 {
		for f, fold := range s.folds {
			column := s.table.nearest(s.meanThreshold(bests, f))
			perFold.NestedRules[fold] = ThresholdRule(s.table.thresholds[column], s.minSum)
			rule := gridRule{minSum: s.minSum, top: column, bottom: column}
			for _, c := range s.cases[f] {
				nestedMean.add(rule.score(c))
			}
		}
	}
	if len(s.folds) > 1 {
		pooled.Nested, perFold.Nested = nested.parts(), nestedMean.parts()
	}
	return perFold, pooled
}

func newChoice() Choice { return Choice{SameRules: map[int]Rule{}, NestedRules: map[int]Rule{}} }

// meanThreshold returns the mean of the folds' best thresholds. It leaves out the
// fold without, unless that is negative.
func (s *search) meanThreshold(bests []int, without int) float64 {
	n := len(bests)
	if without >= 0 {
		n--
	}
	mean := 0.0
	for f, k := range bests {
		if f != without {
			mean += s.thresholds[k] / float64(n) // a fixed order, so that equal runs give equal sums
		}
	}
	return mean
}

// bestOf returns the first index with the highest mean Dice.
func bestOf(tallies []tally) int {
	best := 0
	for k := range tallies {
		if tallies[k].mean() > tallies[best].mean() {
			best = k
		}
	}
	return best
}

// A candidate is the best triplet so far for one set of folds.
type candidate struct {
	mean             float64
	area, top, low   int   // indices; -1 before the first
	scored, heldBack tally // of the folds on which it was chosen, and of the fold held back
}

// triplet finds the best triplet of all folds, and for each fold the best
// triplet of the other folds.
//
// For one area and one low threshold, the high threshold only decides whether an
// image has a mask: the image has one up to the highest threshold at which that many
// pixels are predicted. So the images of a fold are put into buckets by this highest
// threshold, and the fold's scores at all high thresholds are sums over the buckets.
// One pass over the cases for each area and low threshold is enough.
func (s *search) triplet(areas []int) Choice {
	sets := len(s.folds) + 1 // the last set is all folds
	found := make([][]candidate, len(areas))
	var all errgroup.Group
	all.SetLimit(runtime.GOMAXPROCS(0))
	for a, area := range areas {
		all.Go(func() error {
			found[a] = s.tripletsOf(a, area, sets)
			return nil
		})
	}
	all.Wait() // no error

	best := found[0]
	for _, other := range found[1:] {
		for i := range best {
			if other[i].mean > best[i].mean {
				best[i] = other[i]
			}
		}
	}
	rule := func(c candidate) Rule {
		return Rule{Top: s.thresholds[c.top], MinArea: areas[c.area], Bottom: s.thresholds[c.low]}
	}
	choice := newChoice()
	last := best[sets-1]
	choice.Rule, choice.Same = rule(last), last.scored.parts()
	var nested tally
	for f, fold := range s.folds {
		choice.SameRules[fold] = choice.Rule
		if len(s.folds) > 1 {
			choice.NestedRules[fold] = rule(best[f])
			nested.merge(best[f].heldBack)
		}
	}
	if len(s.folds) > 1 {
		choice.Nested = nested.parts()
	}
	return choice
}

// tripletsOf returns the best triplets with one area: for each fold the best
// one of all other folds, and last the best one of all folds.
func (s *search) tripletsOf(a, area, sets int) []candidate {
	n := len(s.thresholds)
	best := make([]candidate, sets)
	for i := range best {
		best[i] = candidate{mean: math.Inf(-1), area: a}
	}
	// masked[f][i] is the number of thresholds up to which a case has a mask.
	masked := make([][]int, len(s.folds))
	for f, cases := range s.cases {
		masked[f] = make([]int, len(cases))
		for i, c := range cases {
			masked[f][i], _ = slices.BinarySearchFunc(s.columns, area, func(column, area int) int {
				if int(c.Predicted[column]) >= area {
					return -1
				}
				return 1
			})
		}
	}
	byFold := make([][]tally, len(s.folds)) // [fold][top]
	for f := range byFold {
		byFold[f] = make([]tally, n)
	}
	without := make([][]tally, len(s.folds)) // [fold][bucket], scored as empty
	for f, cases := range s.cases {
		without[f] = make([]tally, n+1)
		for i, c := range cases {
			without[f][masked[f][i]].add(Overlap{Target: c.Target})
		}
	}
	with := make([]tally, n+1) // per bucket, scored with the mask
	for low := range n {
		for f, cases := range s.cases {
			clear(with)
			for i, c := range cases {
				with[masked[f][i]].add(c.At(s.columns[low]))
			}
			empty := without[f]
			// At the high threshold top, an image of bucket m has a mask if m >
			// top.
			var below tally
			for m := range low {
				below.merge(empty[m])
			}
			for top := low; top < n; top++ {
				below.merge(empty[top])
				byFold[f][top] = below
			}
			var above tally
			for top := n - 1; top >= low; top-- {
				above.merge(with[top+1])
				byFold[f][top].merge(above)
			}
		}
		for top := low; top < n; top++ {
			var all tally
			for f := range byFold {
				all.merge(byFold[f][top])
			}
			best[sets-1].take(all, tally{}, top, low)
			if len(s.folds) > 1 {
				for f := range byFold {
					best[f].take(all.without(byFold[f][top]), byFold[f][top], top, low)
				}
			}
		}
	}
	return best
}

// take replaces the candidate if the new one is better.
func (c *candidate) take(scored, heldBack tally, top, low int) {
	if mean := scored.mean(); mean > c.mean {
		c.mean, c.top, c.low, c.scored, c.heldBack = mean, top, low, scored, heldBack
	}
}

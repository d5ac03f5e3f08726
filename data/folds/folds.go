// Package folds divides the items of a data set into folds for cross-validation: at
// random as the notebook does, with similar mask areas in all folds, or with all
// items of a group in one fold.
package folds

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// KernelSeed is the seed of the notebook's folds.
const KernelSeed = 2019

// Folds divide the items 0 to n-1: Folds[f] are the items held out for
// validation in fold f, ascending. Every item is held out exactly once.
type Folds [][]int

// Train returns the items on which fold f trains, ascending: all but Folds[f].
func (folds Folds) Train(f int) []int {
	var train []int
	for g, items := range folds {
		if g != f {
			train = append(train, items...)
		}
	}
	slices.Sort(train)
	return train
}

// KFold divides n items at random into k folds whose sizes differ by at most 1.
// For every n the folds equal those of the notebook, which uses scikit-learn's
// KFold(k, shuffle=True, random_state=seed). The notebook numbers its files in
// the order in which the file system lists them, which may vary; sort your
// files.
//
// It returns an error if k is less than 2 or there are fewer items than folds.
//
// Source: scikit-learn 1.2.1, model_selection/_split.py; numpy's RandomState.
func KFold(n, k int, seed uint32) (Folds, error) {
	if err := checkFolds(n, k, "items"); err != nil {
		return nil, err
	}
	order := newLegacyRandom(seed).permutation(n)
	folds := make(Folds, k)
	for f := range folds {
		size := n / k
		if f < n%k {
			size++
		}
		folds[f], order = order[:size:size], order[size:]
		slices.Sort(folds[f])
	}
	return folds, nil
}

// ByArea divides items at random into folds with similar mask areas: for every
// area, the numbers of items with at most that area differ by at most 1 between
// any two folds. The numbers of empty masks, of other masks and of all items also
// differ by at most 1. Areas may have any unit.
//
// It returns an error as KFold does, or if an area is negative or not a number.
func ByArea(areas []float64, k int, seed uint32) (Folds, error) {
	if err := checkFolds(len(areas), k, "items"); err != nil {
		return nil, err
	}
	for i, a := range areas {
		if !(a >= 0) {
			return nil, fmt.Errorf("folds: item %d has the mask area %v; want 0 or more", i, a)
		}
	}
	// Sort items by area, with equal areas in random order; of each k
	// neighbours, every fold gets one.
	random := newLegacyRandom(seed)
	order := random.permutation(len(areas))
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(areas[i], areas[j]) })
	folds := make(Folds, k)
	for neighbours := range slices.Chunk(order, k) {
		to := random.permutation(k)
		for i, item := range neighbours {
			folds[to[i]] = append(folds[to[i]], item)
		}
	}
	return folds.sorted(), nil
}

// ByGroup divides items at random so that all items of a group, such as the films
// of one patient, are in one fold. Otherwise a network would be scored on
// patients on which it was trained. groups holds the name of each item's group.
// areas may be nil. With areas, items with a mask are spread evenly first, then
// the others. The largest groups come first, and each goes to the fold that has
// the fewest items so far.
//
// Without areas, the sizes of two folds differ by at most the size of the
// largest group. With areas, their numbers of items with a mask differ by at
// most the largest such number in one group.
//
// It returns an error if k is less than 2, there are fewer groups than folds, an
// item has no group, areas is not as long as groups, or an area is negative or
// not a number.
func ByGroup(groups []string, areas []float64, k int, seed uint32) (Folds, error) {
	if areas != nil && len(areas) != len(groups) {
		return nil, fmt.Errorf("folds: %d mask areas for %d items", len(areas), len(groups))
	}
	type group struct {
		items    []int
		positive int
	}
	var all []*group
	byName := map[string]*group{}
	for i, name := range groups {
		if name == "" {
			return nil, fmt.Errorf("folds: item %d has no group; if the patient is unknown, give the item a group of its own", i)
		}
		g := byName[name]
		if g == nil {
			g = &group{}
			byName[name] = g
			all = append(all, g)
		}
		g.items = append(g.items, i)
		if areas != nil {
			if !(areas[i] >= 0) {
				return nil, fmt.Errorf("folds: item %d has the mask area %v; want 0 or more", i, areas[i])
			}
			if areas[i] > 0 {
				g.positive++
			}
		}
	}
	if err := checkFolds(len(all), k, "groups"); err != nil {
		return nil, err
	}

	random := newLegacyRandom(seed)
	shuffled := make([]*group, len(all))
	for i, j := range random.permutation(len(all)) {
		shuffled[i] = all[j]
	}
	slices.SortStableFunc(shuffled, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.positive, a.positive), cmp.Compare(len(b.items), len(a.items)))
	})
	folds := make(Folds, k)
	positive := make([]int, k)
	for _, g := range shuffled {
		to := 0
		for f := range folds {
			fewer := cmp.Compare(len(folds[f]), len(folds[to]))
			if g.positive > 0 {
				fewer = cmp.Or(cmp.Compare(positive[f], positive[to]), fewer)
			}
			if fewer < 0 {
				to = f
			}
		}
		folds[to] = append(folds[to], g.items...)
		positive[to] += g.positive
	}
	return folds.sorted(), nil
}

func (folds Folds) sorted() Folds {
	for _, items := range folds {
		slices.Sort(items)
	}
	return folds
}

func checkFolds(n, k int, what string) error {
	switch {
	case k < 2:
		return fmt.Errorf("folds: %d folds; want at least 2", k)
	case n < k:
		return fmt.Errorf("folds: %d %s for %d folds; want at least one each: take fewer folds or more data", n, what, k)
	case int64(n) > math.MaxUint32:
		return fmt.Errorf("folds: %d %s; at most 2^32-1 can be shuffled", n, what)
	}
	return nil
}

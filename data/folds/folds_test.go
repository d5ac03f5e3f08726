package folds

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/internal/golden"
)

// CRC-32 of the permutations of 300 small sizes and four large ones, numpy
// 1.24.2:
//
//	def perm(n, seed):
//	    p = np.arange(n, dtype=np.int32); np.random.RandomState(seed).shuffle(p); return p
//	c = 0
//	for n in [*range(300), 65535, 65536, 65537, 100003]: c = zlib.crc32(perm(n, seed).tobytes(), c)
func TestPermutationIsNumpys(t *testing.T) {
	for seed, want := range map[uint32]uint32{0: 0xe0f5ac40, 1: 0x13762a36, 2019: 0xe5635c64, 4294967295: 0x9bb28ac6} {
		c := uint32(0)
		one := func(n int) {
			b := make([]byte, 0, 4*n)
			for _, i := range newLegacyRandom(seed).permutation(n) {
				b = binary.LittleEndian.AppendUint32(b, uint32(i))
			}
			c = crc32.Update(c, crc32.IEEETable, b)
		}
		for n := range 300 {
			one(n)
		}
		for _, n := range []int{65535, 65536, 65537, 100003} {
			one(n)
		}
		assert.Equal(t, want, c, "seed %d", seed)
	}
}

// [v.tolist() for _, v in KFold(4, shuffle=True, random_state=2019).split(range(n))],
// scikit-learn 1.2.1, numpy 1.24.2.
func TestKFold(t *testing.T) {
	for n, want := range map[int]Folds{
		10: {{3, 4, 9}, {0, 1, 6}, {5, 7}, {2, 8}},
		37: {
			{3, 4, 9, 11, 13, 17, 20, 23, 26, 36}, {0, 1, 2, 6, 14, 21, 22, 32, 35},
			{5, 7, 18, 19, 25, 27, 28, 30, 33}, {8, 10, 12, 15, 16, 24, 29, 31, 34},
		},
	} {
		folds, err := KFold(n, 4, KernelSeed)
		require.NoError(t, err)
		assert.Equal(t, want, folds, n)
	}
	folds, err := KFold(10, 4, KernelSeed)
	require.NoError(t, err)
	assert.Equal(t, []int{0, 1, 2, 5, 6, 7, 8}, folds.Train(0))
	assert.Equal(t, []int{0, 1, 3, 4, 5, 6, 7, 9}, folds.Train(3))
}

func TestKFoldGoldens(t *testing.T) {
	tensors := golden.Tensors(t, "b5_kfold/kfold.safetensors")
	for _, n := range []int{10, 37, 10675, 12047} {
		folds, err := KFold(n, 4, KernelSeed)
		require.NoError(t, err)
		for f, items := range folds {
			want := golden.Float64s(t, tensors, fmt.Sprintf("n%d.fold%d", n, f))
			require.Len(t, items, len(want))
			for i, w := range want {
				require.Equal(t, int(w), items[i], "n %d, fold %d, item %d", n, f, i)
			}
		}
	}
}

func TestFoldErrors(t *testing.T) {
	_, err := KFold(3, 4, 1)
	assert.EqualError(t, err, "folds: 3 items for 4 folds; want at least one each: take fewer folds or more data")
	_, err = KFold(9, 1, 1)
	assert.EqualError(t, err, "folds: 1 folds; want at least 2")
	_, err = KFold(-1, -1, 1)
	assert.Error(t, err)
	_, err = ByArea([]float64{1, 2}, 3, 1)
	assert.EqualError(t, err, "folds: 2 items for 3 folds; want at least one each: take fewer folds or more data")
	for _, a := range []float64{-1, math.NaN()} {
		_, err = ByArea([]float64{1, a, 3}, 2, 1)
		assert.ErrorContains(t, err, "item 1 has the mask area")
		_, err = ByGroup([]string{"a", "b", "c"}, []float64{1, a, 3}, 2, 1)
		assert.ErrorContains(t, err, "item 1 has the mask area")
	}
	_, err = ByGroup([]string{"a", "b", "a", "b"}, nil, 3, 1)
	assert.EqualError(t, err, "folds: 2 groups for 3 folds; want at least one each: take fewer folds or more data")
	_, err = ByGroup([]string{"a", "", "c"}, nil, 2, 1)
	assert.ErrorContains(t, err, "item 1 has no group")
	_, err = ByGroup([]string{"a", "b", "c"}, []float64{1}, 2, 1)
	assert.EqualError(t, err, "folds: 1 mask areas for 3 items")
}

// isPartition fails unless every item is held out once, folds ascend, and none
// is empty.
func isPartition(t *testing.T, folds Folds, n int) {
	t.Helper()
	var all []int
	for f, items := range folds {
		require.NotEmpty(t, items)
		require.True(t, slices.IsSorted(items))
		train := folds.Train(f)
		require.Len(t, train, n-len(items))
		require.True(t, slices.IsSorted(train))
		for _, i := range items {
			_, found := slices.BinarySearch(train, i)
			require.False(t, found)
		}
		all = append(all, items...)
	}
	slices.Sort(all)
	require.Len(t, all, n)
	for i, item := range all {
		require.Equal(t, i, item)
	}
}

// spread is the largest less the smallest of a number that each fold has.
func spread(folds Folds, count func(item int) int) int {
	var sums []int
	for _, items := range folds {
		n := 0
		for _, i := range items {
			n += count(i)
		}
		sums = append(sums, n)
	}
	return slices.Max(sums) - slices.Min(sums)
}

func one(int) int { return 1 }

func TestKFoldLaws(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		k := 2 + rng.IntN(6)
		n := k + rng.IntN(60)
		folds, err := KFold(n, k, rng.Uint32())
		require.NoError(t, err)
		require.Len(t, folds, k)
		isPartition(t, folds, n)
		require.LessOrEqual(t, spread(folds, one), 1)

		areas := make([]float64, n)
		for i := range areas {
			areas[i] = float64(max(0, rng.IntN(40)-20)) // half of them 0, ties
		}
		seed := rng.Uint32()
		folds, err = ByArea(areas, k, seed)
		require.NoError(t, err)
		isPartition(t, folds, n)
		for limit := range 21 {
			require.LessOrEqual(t, spread(folds, func(i int) int {
				if areas[i] <= float64(limit) {
					return 1
				}
				return 0
			}), 1, "areas up to %d", limit)
		}
		again, err := ByArea(areas, k, seed)
		require.NoError(t, err)
		require.Equal(t, folds, again)
	}
}

func TestByGroupLaws(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		k := 2 + rng.IntN(5)
		patients := k + rng.IntN(30)
		var groups []string
		var areas []float64
		size, positive := map[string]int{}, map[string]int{}
		for p := range patients {
			name := strconv.Itoa(p)
			for range 1 + rng.IntN(6) {
				groups = append(groups, name)
				areas = append(areas, float64(max(0, rng.IntN(9)-6)))
			}
		}
		rng.Shuffle(len(groups), func(i, j int) {
			groups[i], groups[j] = groups[j], groups[i]
			areas[i], areas[j] = areas[j], areas[i]
		})
		for i, g := range groups {
			size[g]++
			if areas[i] > 0 {
				positive[g]++
			}
		}
		largest := func(m map[string]int) (most int) {
			for _, n := range m {
				most = max(most, n)
			}
			return most
		}
		for _, withAreas := range []bool{false, true} {
			a := areas
			if !withAreas {
				a = nil
			}
			seed := rng.Uint32()
			folds, err := ByGroup(groups, a, k, seed)
			require.NoError(t, err)
			isPartition(t, folds, len(groups))
			home := map[string]int{}
			for f, items := range folds {
				for _, i := range items {
					if was, ok := home[groups[i]]; ok {
						require.Equal(t, was, f, "patient %s is in two folds", groups[i])
					}
					home[groups[i]] = f
				}
			}
			if withAreas {
				require.LessOrEqual(t, spread(folds, func(i int) int { return cmp.Compare(areas[i], 0) }), largest(positive))
			} else {
				require.LessOrEqual(t, spread(folds, one), largest(size))
			}
			again, err := ByGroup(groups, a, k, seed)
			require.NoError(t, err)
			require.Equal(t, folds, again)
		}
	}
}

// Groups of one film each are divided evenly, both the films with a mask and all
// films.
func TestByGroupOfSingles(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		k := 2 + rng.IntN(5)
		n := k + rng.IntN(40)
		groups, areas := make([]string, n), make([]float64, n)
		for i := range groups {
			groups[i] = strconv.Itoa(i)
			areas[i] = float64(rng.IntN(2))
		}
		folds, err := ByGroup(groups, areas, k, rng.Uint32())
		require.NoError(t, err)
		require.LessOrEqual(t, spread(folds, func(i int) int { return int(areas[i]) }), 1)
		require.LessOrEqual(t, spread(folds, one), 1)
	}
}

// The largest group must come first; otherwise the four films of one patient
// are added to a full fold.
func TestByGroupEvensOut(t *testing.T) {
	for seed := range uint32(50) {
		folds, err := ByGroup([]string{"a", "b", "big", "big", "c", "big", "d", "big"}, nil, 2, seed)
		require.NoError(t, err)
		require.Contains(t, folds, []int{2, 3, 5, 7})
	}
}

// The seed matters: among many seeds an item is held out in each fold about as
// often, 4000/4 = 1000 with a standard deviation of 27.
func TestFoldsAreRandom(t *testing.T) {
	const seeds = 4000
	areas := []float64{0, 0, 0, 5, 0, 7, 0, 9}
	groups := []string{"a", "a", "b", "c", "d", "e", "f", "g"}
	for name, split := range map[string]func(seed uint32) (Folds, error){
		"plain":   func(seed uint32) (Folds, error) { return KFold(8, 4, seed) },
		"by area": func(seed uint32) (Folds, error) { return ByArea(areas, 4, seed) },
	} {
		var times [8][4]int
		for seed := range uint32(seeds) {
			folds, err := split(seed)
			require.NoError(t, err)
			for f, items := range folds {
				for _, i := range items {
					times[i][f]++
				}
			}
		}
		for i := range times {
			for f, n := range times[i] {
				assert.InDelta(t, seeds/4, n, 5*27, "%s: item %d in fold %d", name, i, f)
			}
		}
	}
	together := map[bool]int{}
	for seed := range uint32(seeds) {
		folds, err := ByGroup(groups, nil, 4, seed)
		require.NoError(t, err)
		for _, items := range folds {
			if slices.Contains(items, 3) {
				together[slices.Contains(items, 5)]++
			}
		}
	}
	assert.Greater(t, min(together[true], together[false]), 100, "groups meet and part")
}

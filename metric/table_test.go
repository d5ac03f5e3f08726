package metric

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/big"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// heldOut holds cases with their probabilities, which a table does not keep.
type heldOut struct {
	cases   []Case
	probs   [][][]float32 // [case][class]
	targets [][]uint8
}

func randomHeldOut(rng *rand.Rand, n, folds, classes int, thresholds []float64) (h heldOut) {
	for i, fold := range rng.Perm(n) {
		p, y := randomImages(rng, 1, thresholds)
		probs := [][]float32{p[0]}
		for len(probs) < classes {
			other := make([]float32, len(p[0]))
			for j := range other {
				other[j] = rng.Float32()
			}
			probs = append(probs, other)
		}
		for j := range y[0] {
			y[0][j] %= uint8(classes + 1)
		}
		c := Case{Fold: fold % folds, Index: i, Name: fmt.Sprintf("film %d", i)}
		if rng.IntN(2) == 0 {
			c.Group = fmt.Sprintf("patient %d", rng.IntN(5))
		}
		h.cases, h.probs, h.targets = append(h.cases, c), append(h.probs, probs), append(h.targets, y[0])
	}
	return h
}

func (h *heldOut) table(t testing.TB, thresholds []float64, cases ...int) *Table {
	classes := []string{"left", "right", "third"}[:len(h.probs[0])]
	table, err := NewTable(classes, thresholds)
	require.NoError(t, err)
	for _, i := range cases {
		require.NoError(t, table.Add(h.cases[i], h.probs[i], h.targets[i]))
	}
	return table
}

func (h *heldOut) all() []int {
	all := make([]int, len(h.cases))
	for i := range all {
		all[i] = i
	}
	return all
}

// slow scores a rule on the pixels of some cases, summed as rationals.
func (h *heldOut) slow(class uint8, ruleOf func(fold int) Rule, want func(fold int) bool) (p Parts) {
	sum, positive, correct, n := new(big.Rat), new(big.Rat), 0, 0
	for i, c := range h.cases {
		if !want(c.Fold) {
			continue
		}
		n++
		mask := make([]uint8, len(h.targets[i]))
		ruleOf(c.Fold).Apply(mask, h.probs[i][class-1], class)
		o := CompareMasks(mask, h.targets[i], class)
		score := new(big.Rat).SetFloat64(o.Dice())
		sum.Add(sum, score)
		if o.Target > 0 {
			p.Positives++
			positive.Add(positive, score)
		} else {
			p.Negatives++
			correct += int(o.Dice())
		}
	}
	f, _ := sum.Float64()
	p.Dice = f / float64(n)
	if p.Negatives > 0 {
		p.Specificity = float64(correct) / float64(p.Negatives)
	}
	if p.Positives > 0 {
		f, _ := positive.Float64()
		p.DicePositive = f / float64(p.Positives)
	}
	return p
}

func everyFold(int) bool { return true }

// Each choice equals the result of trying every rule on the pixels.
func TestSearchIsTheSlowSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	for round := range 25 {
		thresholds := []float64{0.05, 0.2, 0.3, 0.5, 0.7, 0.9}
		folds, classes := 1+rng.IntN(4), 1+rng.IntN(2)
		h := randomHeldOut(rng, folds+rng.IntN(20), folds, classes, thresholds)
		class := uint8(1 + rng.IntN(classes))
		opt := &SearchOptions{Thresholds: thresholds[rng.IntN(2):], MinAreas: []int{0, 1, 5, 40}, MinSum: []float64{0, 12}[rng.IntN(2)]}
		found, err := h.table(t, thresholds, h.all()...).Search(class, opt)
		require.NoError(t, err)

		best := func(rules []Rule, want func(fold int) bool) Rule {
			var choice Rule
			dice := math.Inf(-1)
			for _, r := range rules {
				if p := h.slow(class, func(int) Rule { return r }, want); p.Dice > dice {
					choice, dice = r, p.Dice
				}
			}
			return choice
		}
		var single, triplets []Rule
		for _, thr := range opt.Thresholds {
			single = append(single, ThresholdRule(thr, opt.MinSum))
		}
		for _, area := range opt.MinAreas {
			for i, bottom := range opt.Thresholds {
				for _, top := range opt.Thresholds[i:] {
					triplets = append(triplets, Rule{Top: top, MinArea: area, Bottom: bottom})
				}
			}
		}
		for name, tc := range map[string]struct {
			choice Choice
			rules  []Rule
		}{"pooled": {found.Pooled, single}, "triplet": {found.Triplet, triplets}} {
			c := tc.choice
			require.Equal(t, best(tc.rules, everyFold), c.Rule, "round %d, %s", round, name)
			require.Equal(t, h.slow(class, func(int) Rule { return c.Rule }, everyFold), c.Same, "round %d, %s", round, name)
			if folds == 1 {
				require.Zero(t, c.Nested)
				continue
			}
			nested := map[int]Rule{}
			for f := range folds {
				nested[f] = best(tc.rules, func(fold int) bool { return fold != f })
			}
			require.Equal(t, nested, c.NestedRules, "round %d, %s", round, name)
			require.Equal(t, h.slow(class, c.NestedRule, everyFold), c.Nested, "round %d, %s", round, name)
			require.Equal(t, c.Same.Dice-c.Nested.Dice, c.Optimism())
		}

		c := found.PerFold
		mean := 0.0
		for f := range folds {
			r := best(single, func(fold int) bool { return fold == f })
			require.Equal(t, r, c.SameRules[f], "round %d", round)
			mean += r.Top / float64(folds)
		}
		require.Equal(t, ThresholdRule(mean, opt.MinSum), c.Rule)
		require.Equal(t, h.slow(class, c.SameRule, everyFold), c.Same)
		if folds > 1 {
			require.Equal(t, h.slow(class, c.NestedRule, everyFold), c.Nested)
			for f := range folds {
				others := 0.0
				for g := range folds {
					if g != f {
						others += c.SameRules[g].Top / float64(folds-1)
					}
				}
				for _, thr := range thresholds {
					require.LessOrEqual(t, math.Abs(c.NestedRules[f].Top-others), math.Abs(thr-others)+1e-15, "the nearest threshold")
				}
			}
		}
	}
}

func TestChoicesText(t *testing.T) {
	c := Choices{
		PerFold: Choice{Rule: ThresholdRule(0.2525, 300), Same: Parts{Dice: 0.9, Positives: 1}, Nested: Parts{Dice: 0.875, Positives: 1}},
		Pooled:  Choice{Rule: ThresholdRule(0.25, 0), Same: Parts{Dice: 0.5, Positives: 1}},
		Triplet: Choice{Rule: Rule{Top: 0.75, MinArea: 125, Bottom: 0.3}, Same: Parts{Dice: 0.5, Positives: 1}, Nested: Parts{Dice: 0.625, Positives: 1}},
	}
	assert.Equal(t, `chosen               on these images   on the other folds  optimism  for new images
threshold per fold   0.9000            0.8750              +0.0250   above 0.2525 if probabilities sum to at least 300
one threshold        0.5000            -                   -         above 0.25
triplet              0.5000            0.6250              -0.1250   above 0.3 if at least 125 pixels are above 0.75
`, c.String())
}

// A table gives the notebook's numbers, as a sweep does: the golden values of
// the notebook's code with its noise rule, one fold per size.
func TestTableGoldens(t *testing.T) {
	for _, c := range goldenCases(t) {
		table, err := NewTable([]string{"pneumothorax"}, RefinedThresholds(4))
		require.NoError(t, err)
		for i, p := range c.prob {
			require.NoError(t, table.Add(Case{Index: i, Name: fmt.Sprint(i)}, [][]float32{p}, c.targets[i]))
		}
		noise := NoiseArea(c.size, c.size)
		found, err := table.Search(1, &SearchOptions{MinSum: noise})
		require.NoError(t, err)
		assert.Equal(t, ThresholdRule(c.sweep.BestThr, noise), found.PerFold.SameRules[0])
		assert.Equal(t, found.Pooled.Rule, found.PerFold.SameRules[0], "there is one fold")
		assert.InDelta(t, c.sweep.BestDice, found.PerFold.Same.Dice, 6e-8) // torch's mean of float32
		dice, err := table.Curve(1, -1, noise)
		require.NoError(t, err)
		for k, want := range c.dices {
			assert.InDelta(t, want, dice[4*k], 1e-7)
		}
	}
}

// A table is a set of cases: order, division and goroutines do not matter, and
// nothing is lost in a file.
func TestTableMergeAndEncode(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	thresholds := RefinedThresholds(2)
	for classes := 1; classes <= 3; classes++ {
		h := randomHeldOut(rng, 40, 4, classes, Thresholds())
		whole := h.table(t, thresholds, h.all()...)
		want, err := whole.MarshalBinary()
		require.NoError(t, err)

		shuffled := h.table(t, thresholds, rng.Perm(40)...)
		got, err := shuffled.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, want, got)

		parts := make([][]int, 4)
		for i, c := range h.cases {
			parts[c.Fold] = append(parts[c.Fold], i)
		}
		merged := h.table(t, thresholds)
		for _, f := range rng.Perm(4) {
			b, err := h.table(t, thresholds, parts[f]...).MarshalBinary()
			require.NoError(t, err)
			part, err := ReadTable(b)
			require.NoError(t, err)
			require.NoError(t, merged.Merge(part))
		}
		got, err = merged.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, want, got, "folds apart, to the same bytes")

		back, err := ReadTable(want)
		require.NoError(t, err)
		require.Equal(t, whole.Cases(), back.Cases())
		for class := uint8(1); class <= uint8(classes); class++ {
			a, err := whole.Search(class, nil)
			require.NoError(t, err)
			b, err := back.Search(class, nil)
			require.NoError(t, err)
			require.Equal(t, a, b)
		}

		together := h.table(t, thresholds)
		var wg sync.WaitGroup
		for _, part := range parts {
			wg.Go(func() {
				for _, i := range part {
					assert.NoError(t, together.Add(h.cases[i], h.probs[i], h.targets[i]))
				}
			})
		}
		wg.Wait()
		got, err = together.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestReadTableErrors(t *testing.T) {
	rng := rand.New(rand.NewPCG(25, 26))
	h := randomHeldOut(rng, 6, 2, 1, Thresholds())
	b, err := h.table(t, nil, h.all()...).MarshalBinary()
	require.NoError(t, err)
	for n := range b {
		_, err := ReadTable(b[:n])
		require.Error(t, err, n)
	}
	for range 200 {
		bad := slices.Clone(b)
		bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		_, err := ReadTable(bad)
		require.Error(t, err)
	}
	read := 0
	for range 3000 { // with a checksum that is right
		bad := slices.Clone(b[:len(b)-4])
		for range 1 + rng.IntN(3) {
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		}
		if table, err := ReadTable(sign(bad)); err == nil {
			read++ // a name or a sum may be anything
			once, err := table.MarshalBinary()
			require.NoError(t, err)
			back, err := ReadTable(once)
			require.NoError(t, err)
			twice, err := back.MarshalBinary()
			require.NoError(t, err)
			require.Equal(t, once, twice)
		}
	}
	require.Less(t, read, 3000)
	later := slices.Clone(b)
	later[len(tableMagic)] = 4 // varint of 2
	_, err = ReadTable(sign(later[:len(later)-4]))
	assert.ErrorContains(t, err, "has version 2, this program reads version 1")
	_, err = ReadTable([]byte("\x89PNG\r\n\x1a\n"))
	assert.ErrorContains(t, err, "not a table of cases")
	_, err = ReadTable(sign(append(slices.Clone(b[:len(b)-4]), 0)))
	assert.ErrorContains(t, err, "1 bytes after the last case")
}

func sign(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }

// A table that can be read is written to the same bytes, and its methods do not
// fail.
func FuzzReadTable(f *testing.F) {
	rng := rand.New(rand.NewPCG(27, 28))
	for classes := 1; classes <= 2; classes++ {
		h := randomHeldOut(rng, 5, 2, classes, Thresholds())
		b, err := h.table(f, []float64{0.1, 0.5, 0.6}, h.all()...).MarshalBinary()
		require.NoError(f, err)
		f.Add(b[:len(b)-4])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := ReadTable(sign(b))
		if err != nil {
			return
		}
		once, err := table.MarshalBinary()
		require.NoError(t, err)
		back, err := ReadTable(once)
		require.NoError(t, err)
		twice, err := back.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, once, twice)
		if len(table.Thresholds()) < 10 && len(table.Cases()) > 0 {
			_, err = table.Search(1, &SearchOptions{Thresholds: table.Thresholds()})
			require.NoError(t, err)
		}
	})
}

func TestTableErrors(t *testing.T) {
	_, err := NewTable(nil, nil)
	assert.ErrorContains(t, err, "0 classes")
	_, err = NewTable([]string{"a"}, []float64{0.5, 0.4})
	assert.ErrorContains(t, err, "threshold 1 is 0.4")
	_, err = NewTable([]string{"a"}, make([]float64, 4097))
	assert.ErrorContains(t, err, "4097 thresholds")

	table, err := NewTable([]string{"a"}, nil)
	require.NoError(t, err)
	p, y := [][]float32{{0.1, 0.9}}, []uint8{0, 1}
	require.NoError(t, table.Add(Case{Index: 3, Name: "x"}, p, y))
	assert.ErrorContains(t, table.Add(Case{Fold: 1, Index: 3, Name: "z"}, p, y), `case "z" is number 3, as is "x"`)
	assert.ErrorContains(t, table.Add(Case{Name: "z"}, nil, y), "of 0 classes, the table has 1")
	assert.ErrorContains(t, table.Add(Case{Name: "z"}, p, y[:1]), "2 probabilities of a and 1 target pixels")
	assert.Len(t, table.Cases(), 1)

	for _, other := range []struct {
		c          Case
		classes    []string
		thresholds []float64
		want       string
	}{
		{Case{Name: "y", Index: 3}, []string{"a"}, nil, `cannot merge: case "y" is number 3, as is "x"`},
		{Case{Name: "y"}, []string{"b"}, nil, "must be the same"},
		{Case{Name: "y"}, []string{"a"}, []float64{0.5}, "must be the same"},
	} {
		o, err := NewTable(other.classes, other.thresholds)
		require.NoError(t, err)
		require.NoError(t, o.Add(other.c, p, y))
		assert.ErrorContains(t, table.Merge(o), other.want)
	}
	assert.Len(t, table.Cases(), 1)

	for _, class := range []uint8{0, 2} {
		_, err = table.Search(class, nil)
		assert.ErrorContains(t, err, "want 1 to 1")
	}
	_, err = table.Search(1, &SearchOptions{Thresholds: []float64{0.015}})
	assert.ErrorContains(t, err, "threshold 0.015 was not counted")
	_, err = table.Search(1, &SearchOptions{Thresholds: []float64{0.02, 0.01}})
	assert.ErrorContains(t, err, "want ascending")
	_, err = table.Search(1, &SearchOptions{MinAreas: []int{5, 3}})
	assert.ErrorContains(t, err, "areas [5 3]")
	_, err = table.Search(1, &SearchOptions{Thresholds: []float64{}})
	assert.ErrorContains(t, err, "0 thresholds over 1 cases")
	_, err = table.Overlaps(1, func(int) Rule { return ThresholdRule(0.123, 0) })
	assert.ErrorContains(t, err, "nearest one in the table is 0.12")
}

func TestRefinedThresholds(t *testing.T) {
	rng := rand.New(rand.NewPCG(29, 30))
	coarse := Thresholds()
	for n := 1; n <= 10; n++ {
		fine := RefinedThresholds(n)
		table, err := NewTable([]string{"a"}, fine)
		require.NoError(t, err)
		for k, v := range coarse {
			require.Equal(t, v, fine[n*k])
		}
		for range 2000 { // a mean of thresholds, added as a search adds them
			mean := 0.0
			for range n {
				mean += coarse[rng.IntN(99)] / float64(n)
			}
			_, err := table.onGrid(ThresholdRule(mean, 0))
			require.NoError(t, err, n)
		}
	}
}

func TestTableReport(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	h := randomHeldOut(rng, 30, 3, 2, Thresholds())
	table := h.table(t, nil, h.all()...)
	found, err := table.Search(2, nil)
	require.NoError(t, err)
	bootstrap := func() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
	r, err := table.Report(2, found.Pooled.NestedRule, &ReportOptions{Chosen: ChosenOnOthers, Rand: bootstrap()})
	require.NoError(t, err)
	assert.Equal(t, "right", r.Class)
	assert.Equal(t, found.Pooled.Nested, r.Parts)

	overlaps, err := table.Overlaps(2, found.Pooled.NestedRule)
	require.NoError(t, err)
	groups := make([]string, len(overlaps))
	for i, c := range table.Cases() {
		groups[i] = c.Name
		if c.Group != "" {
			groups[i] = c.Group
		}
	}
	assert.Equal(t, Summarize(overlaps, &ReportOptions{Class: "right", Chosen: ChosenOnOthers, Rand: bootstrap(), Groups: groups}), r)
}

func TestMinAreas(t *testing.T) {
	areas := MinAreas(1024 * 1024)
	assert.Equal(t, []int{0, 250, 500, 750}, areas[:4])
	assert.Equal(t, 4000, areas[16])
	assert.Equal(t, 125, MinAreas(256 * 256)[8], "2000 at 1024x1024")
	assert.Equal(t, []int{0, 1, 2, 3, 4}, MinAreas(32*32))
}

func TestRule(t *testing.T) {
	prob := []float32{0.9, 0.8, 0.3, 0.25, 0.1}
	for _, tc := range []struct {
		r    Rule
		want string
		text string
	}{
		{Rule{Top: 0.7, MinArea: 2, Bottom: 0.2}, "####.", "above 0.2 if at least 2 pixels are above 0.7"},
		{Rule{Top: 0.7, MinArea: 3, Bottom: 0.2}, ".....", "above 0.2 if at least 3 pixels are above 0.7"},
		{ThresholdRule(0.8, 0), "#....", "above 0.8"},
		{ThresholdRule(0.5, 2.36), ".....", "above 0.5 if probabilities sum to at least 2.36"},
		{ThresholdRule(0.5, 2.34), "##...", "above 0.5 if probabilities sum to at least 2.34"},
		{Rule{}, "#####", "above 0"},
	} {
		m := make([]uint8, 5)
		tc.r.Apply(m, prob, 1)
		assert.Equal(t, mask(tc.want), m, tc.text)
		assert.Equal(t, tc.text, tc.r.String())
	}
	m := []uint8{2, 0}
	ThresholdRule(0.5, 0).Apply(m, []float32{0.1, 0.9}, 3)
	assert.Equal(t, []uint8{2, 3}, m, "other pixels stay")
}

// BenchmarkSearch is the whole search of a data set's size: 2,670 probability maps of
// 256x256, counted on all processors, and the three choices with their nested
// estimates. 267 maps, larger than the caches, are read ten times.
func BenchmarkSearch(b *testing.B) {
	const size, maps, films = 256, 267, 2670
	rng := rand.New(rand.NewPCG(33, 34))
	probs, targets := make([][]float32, maps), make([][]uint8, maps)
	for i := range probs {
		probs[i], targets[i] = filmMap(rng, size)
	}
	b.ResetTimer()
	for b.Loop() {
		table, err := NewTable([]string{"pneumothorax"}, nil)
		require.NoError(b, err)
		var wg sync.WaitGroup
		workers := runtime.GOMAXPROCS(0)
		for w := range workers {
			wg.Go(func() {
				for i := w; i < films; i += workers {
					c := Case{Fold: i * 4 / films, Index: i, Name: fmt.Sprint(i)}
					assert.NoError(b, table.Add(c, [][]float32{probs[i%maps]}, targets[i%maps]))
				}
			})
		}
		wg.Wait()
		_, err = table.Search(1, &SearchOptions{MinSum: NoiseArea(size, size)})
		require.NoError(b, err)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/search")
}

// filmMap draws probabilities as a network gives them: low and noisy background, and
// in one film of four a blob with soft edges.
func filmMap(rng *rand.Rand, size int) ([]float32, []uint8) {
	prob, target := make([]float32, size*size), make([]uint8, size*size)
	x, y, r := rng.Float64()*float64(size), rng.Float64()*float64(size), 0.0
	if rng.IntN(4) == 0 {
		r = 10 + 30*rng.Float64()
	}
	for i := range prob {
		logit := rng.NormFloat64() - 5
		if r > 0 {
			d := math.Hypot(float64(i%size)-x, float64(i/size)-y)
			logit += 8 / (1 + math.Exp((d-r)/4))
			if d < r {
				target[i] = 1
			}
		}
		prob[i] = float32(1 / (1 + math.Exp(-logit)))
	}
	return prob, target
}

package libtorch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/predict"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// The process does not grow over 10,000 films of several sizes that eight goroutines
// predict with a small network.
func TestMemoryOfManyFilms(t *testing.T) {
	if !golden.Long() {
		t.Skip("predicts 10,000 films; make test-long")
	}
	a, _ := model(t)
	dir, names := films(t)
	p, err := predict.New(a, Backend{}, &predict.Options{Folds: []int{0}, Flip: new(bool)})
	require.NoError(t, err)
	defer p.Close()
	begun := resident(t)
	predicted := func(n int) int {
		var all errgroup.Group
		all.SetLimit(8)
		for i := range n {
			all.Go(func() error {
				_, err := p.File(t.Context(), filepath.Join(dir, names[i%len(names)]))
				return err
			})
		}
		require.NoError(t, all.Wait())
		return resident(t)
	}
	thousand := predicted(1000)
	all := predicted(9000)
	t.Logf("resident memory: %d MiB before, %d after 1,000 films, %d after 10,000", begun, thousand, all)
	require.Less(t, all, thousand+32)
}

// resident returns the resident memory of the process in MiB.
func resident(t *testing.T) (mib int) {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	_, err = fmt.Sscan(after, &mib)
	require.NoError(t, err)
	return mib / 1024
}

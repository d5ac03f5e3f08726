package dist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// The test binary is the program of its own jobs: HCUNET_TEST_ROLE names a
// function that each rank runs.
func TestMain(m *testing.M) {
	role := os.Getenv("HCUNET_TEST_ROLE")
	if role == "" {
		os.Exit(m.Run())
	}
	if err := rank(roles[role]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func rank(f func(*Group) error) error {
	cfg, ok, err := FromEnviron(os.Getenv)
	if err != nil || !ok {
		return fmt.Errorf("no launcher: %v, %w", ok, err)
	}
	g, err := Open(cfg)
	if err != nil {
		return err
	}
	defer g.Close()
	if err := nn.SetThreads(1); err != nil {
		return err
	}
	if err := f(g); err != nil {
		g.Fail(err)
		return err
	}
	return g.Barrier()
}

var roles = map[string]func(*Group) error{
	"collectives": collectives,
	"reducer":     reducer,
	"statistics":  statistics,
	"fails":       fails,
	"killed":      killed,
	"disagree":    disagree,
}

// launch runs a role as n processes and returns what they printed.
func launch(t *testing.T, role string, n int) (string, error) {
	golden.Processes(t, Available(false))
	t.Setenv("HCUNET_TEST_ROLE", role)
	t.Setenv("HCUNET_TIMEOUT", "1h") // a test that waits for it never ends
	var out lockedBuffer
	err := Launch(t.Context(), n, []string{os.Args[0]}, &LaunchOptions{Stdout: &out, Stderr: &out})
	return out.String(), err
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func tensor(values ...float64) torch.Tensor {
	t, err := nn.FromSlice(nn.CPU, values, int64(len(values)))
	if err != nil {
		panic(err)
	}
	return t
}

// expect returns an error where a tensor's values differ.
func expect(what string, t torch.Tensor, want ...float64) error {
	got, err := nn.Slice[float64](t)
	if err == nil && fmt.Sprint(got) != fmt.Sprint(want) {
		err = fmt.Errorf("%s: %v, wanted %v", what, got, want)
	}
	return err
}

func collectives(g *Group) error {
	r := float64(g.Rank())
	a, b := tensor(r, 1), tensor(10*r)
	if err := errors.Join(g.Sum(a, b), expect("sum", a, 6, 4), expect("sum", b, 60)); err != nil { // 0+1+2+3
		return err
	}
	c := tensor(r)
	if err := errors.Join(g.Broadcast(2, c), expect("broadcast", c, 2)); err != nil {
		return err
	}
	v := []float64{r, -r}
	if err := g.SumFloats(v); err != nil || v[0] != 6 || v[1] != -6 {
		return fmt.Errorf("floats: %v, %w", v, err)
	}
	all, err := g.GatherBytes(bytes.Repeat([]byte{byte('a' + g.Rank())}, g.Rank()))
	if got := fmt.Sprintf("%s", all); err != nil || got != "[ b cc ddd]" {
		return fmt.Errorf("bytes: %s, %w", got, err)
	}
	return g.Agree("word", "the same")
}

func TestCollectives(t *testing.T) {
	out, err := launch(t, "collectives", 4)
	require.NoError(t, err, out)
}

// Two passes are gathered and the second sends: the gradients are the sums over
// passes and ranks.
func reducer(g *Group) error {
	w, bias := tensor(2, 3), tensor(1)
	nn.SetRequiresGrad(w, true)
	nn.SetRequiresGrad(bias, true)
	r, err := g.NewReducer([]torch.Tensor{w, bias})
	if err != nil {
		return err
	}
	defer r.Close()
	pass := func(x ...float64) error {
		return nn.Backward(nn.Add(nn.Sum(nn.Mul(w, tensor(x...))), nn.Sum(nn.MulScalar(bias, x[0]))))
	}
	k := float64(g.Rank() + 1)
	for step := range 2 {
		if err := nn.ZeroGrad([]nn.Named{{Tensor: w}, {Tensor: bias}}); err != nil {
			return err
		}
		if err := errors.Join(pass(k, 1), r.Prepare(), pass(10*k, 2), r.Finish()); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		gw, _ := nn.Grad(w)
		gb, _ := nn.Grad(bias)
		// 11*(1+2+3) and 3*3
		if err := errors.Join(expect("weight", gw, 66, 9), expect("bias", gb, 66)); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	return nil
}

func TestReducer(t *testing.T) {
	out, err := launch(t, "reducer", 3)
	require.NoError(t, err, out)
}

// With s the sum over the ranks of x and a loss of r*s*s on rank r, dloss/ds is
// 2rs there, and dL/dx is its sum over all ranks.
func statistics(g *Group) error {
	r := float64(g.Rank() + 1)
	x := tensor(r, 2)
	nn.SetRequiresGrad(x, true)
	s := g.SumWithGradient(x)
	if err := expect("sum", s, 3, 4); err != nil { // 1+2, 2+2
		return err
	}
	if err := nn.Backward(nn.MulScalar(nn.Sum(nn.Mul(s, s)), r)); err != nil {
		return err
	}
	grad, _ := nn.Grad(x)
	return expect("gradient", grad, 18, 24) // 2*3*(1+2), 2*4*(1+2)
}

func TestSumWithGradient(t *testing.T) {
	out, err := launch(t, "statistics", 2)
	require.NoError(t, err, out)
}

func fails(g *Group) error {
	signal.Ignore(os.Interrupt) // as programs do that end in an orderly way; otherwise the launcher may end a rank before it says anything
	if g.Rank() == 1 {
		return errors.New("film 7 is torn")
	}
	for {
		if err := g.Sum(tensor(1)); err != nil {
			return err
		}
	}
}

// One rank's error ends all of them, and all say whose it was.
func TestFail(t *testing.T) {
	out, err := launch(t, "fails", 3)
	require.Error(t, err)
	require.Contains(t, out, "[rank 1] film 7 is torn\n")
	require.Contains(t, out, "[rank 2] rank 1 failed: film 7 is torn\n")
	require.Regexp(t, `(?m)^rank 1 failed: film 7 is torn$`, out) // rank 0
}

func killed(g *Group) error {
	if g.Rank() == 1 {
		p, err := os.FindProcess(os.Getpid())
		if err != nil {
			return err
		}
		return p.Kill()
	}
	for {
		if err := g.Sum(tensor(1)); err != nil {
			return err
		}
	}
}

// If a rank is killed, the others end at once and do not wait for the timeout.
func TestKilled(t *testing.T) {
	out, err := launch(t, "killed", 3)
	require.ErrorContains(t, err, "rank 1 of 3 ended with signal: killed", out)
}

func disagree(g *Group) error { return g.Agree("description", fmt.Sprint("seed ", g.Rank()/2)) }

func TestAgree(t *testing.T) {
	out, err := launch(t, "disagree", 3)
	require.Error(t, err)
	require.Contains(t, out, "rank 2 has another description than rank 0")
}

func TestOpenNamesTheAbsent(t *testing.T) {
	golden.Processes(t, Available(false))
	port, err := freePort()
	require.NoError(t, err)
	cfg := Config{Size: 3, LocalSize: 1, Host: "127.0.0.1", Port: port, Serve: true, Timeout: 2 * time.Second}
	_, err = Open(cfg)
	require.ErrorContains(t, err, "have not come to 127.0.0.1")
	require.ErrorContains(t, err, ": 1, 2")
}

// A store that speaks another protocol is named as such, and is not waited for.
func TestOpenNamesAForeignStore(t *testing.T) {
	golden.Processes(t, Available(false))
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer foreign.Close() // it accepts connections and says nothing
	_, err = Open(Config{Rank: 1, Size: 2, LocalSize: 1, Host: "127.0.0.1", Port: foreign.Addr().(*net.TCPAddr).Port, Timeout: time.Second})
	require.ErrorContains(t, err, "does not answer")
	require.ErrorContains(t, err, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1")
}

func TestLaunchInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, Launch(ctx, 2, []string{"sleep", "3600"}, nil), context.DeadlineExceeded)
}

func TestLaunchRefuses(t *testing.T) {
	require.ErrorContains(t, Launch(t.Context(), 0, []string{"true"}, nil), "at least one")
	require.ErrorContains(t, Launch(t.Context(), 1, []string{"/no/such/program"}, nil), "rank 0 of 1")
}

func TestPrefixed(t *testing.T) {
	var out strings.Builder
	p := &prefixed{w: &out, label: "rank 3"}
	fmt.Fprint(p, "a\nb")
	fmt.Fprint(p, "c\n\nd")
	p.flush()
	require.Equal(t, "[rank 3] a\n[rank 3] bc\n[rank 3] \n[rank 3] d", out.String())
}

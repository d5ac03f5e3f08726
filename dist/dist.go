// Package dist runs one program as several processes that train one network, on
// one machine or many. torchrun, Slurm, Kubernetes or [Launch] starts the
// processes.
//
// It uses libtorch's c10d: the processes find each other through a TCPStore and
// exchange tensors over Gloo on the CPU and NCCL on CUDA. Every process (a rank)
// must make the same calls in the same order; a call returns when all ranks have
// made it. A [Group] must not be used by several goroutines at once.
//
// # Errors
//
// A rank that fails calls [Group.Fail], which writes its error to the store. The
// next call of every other rank then returns an error that quotes it: at once if
// the process has ended, after Config.Timeout if it hangs. After an error a
// group cannot be used any more.
package dist

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

const defaultTimeout = 5 * time.Minute

// A Group is the connection of one process to the other processes of a job.
type Group struct {
	cfg    Config
	store  *shim.Store
	host   *shim.Group // Gloo, for data in main memory
	device *shim.Group // for tensors where the parameters are: host, or NCCL
	failed error
}

// A RemoteError is an error of another rank, because of which this one ends.
type RemoteError struct {
	Rank int
	Text string
}

func (e *RemoteError) Error() string { return fmt.Sprintf("rank %d failed: %s", e.Rank, e.Text) }

// Available returns nil, or, if the program was built without what several processes need on
// the CPU (Gloo's headers) or on CUDA (those and NCCL's), an error that says what to install.
func Available(cuda bool) error { return shim.NoProcesses(cuda) }

// Open joins the group. It returns when all ranks have joined, or with an error
// that names the ranks that have not joined within the timeout.
func Open(cfg Config) (*Group, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if err := Available(cfg.CUDA); err != nil {
		return nil, fmt.Errorf("dist: %w", err)
	}
	store, err := openStore(cfg)
	if err != nil {
		if cfg.Serve {
			return nil, fmt.Errorf("dist: opening the store at %s: %w", cfg.address(), err)
		}
		return nil, fmt.Errorf("dist: no answer from the store of rank 0 at %s within %v: %w", cfg.address(), cfg.Timeout, err)
	}
	g := &Group{cfg: cfg, store: store}
	if err := g.join(); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (g *Group) join() error {
	if err := g.meet(); err != nil {
		return err
	}
	var err error
	open := func(backend string) (*shim.Group, error) {
		return shim.OpenGroup(g.store, backend, g.key(backend), g.cfg.Rank, g.cfg.Size, g.cfg.Timeout, g.cfg.Interface)
	}
	if g.host, err = open("gloo"); err != nil {
		return fmt.Errorf("dist: rank %d of %d cannot reach the others; name the network that they share with HCUNET_INTERFACE: %w",
			g.cfg.Rank, g.cfg.Size, err)
	}
	g.device = g.host
	if g.cfg.CUDA {
		if g.device, err = open("nccl"); err != nil {
			return fmt.Errorf("dist: %w", err)
		}
	}
	return nil
}

// openStore connects to the store. libtorch 2.15 waits without end for the first answer of
// something that accepts connections and says nothing; then the call is left behind.
func openStore(cfg Config) (*shim.Store, error) {
	type opened struct {
		store *shim.Store
		err   error
	}
	done := make(chan opened, 1)
	go func() {
		store, err := shim.OpenStore(cfg.Host, cfg.Port, cfg.Serve, cfg.Timeout)
		done <- opened{store, err}
	}()
	select {
	case o := <-done:
		return o.store, o.err
	case <-time.After(cfg.Timeout + min(cfg.Timeout, answerTimeout)):
		return nil, cfg.silent(errors.New("no first answer"))
	}
}

// silent is the error if the store does not answer.
func (c Config) silent(err error) error {
	return fmt.Errorf("the store at %s accepts connections but does not answer; if it is that of a torchrun whose PyTorch is of another version than libtorch here, start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1: %w", c.address(), err)
}

// answerTimeout is enough for a store to answer for the first time.
const answerTimeout = 30 * time.Second

// meet waits until every rank has joined.
func (g *Group) meet() error {
	own := g.key("here", strconv.Itoa(g.cfg.Rank))
	if err := g.store.Set(own, "yes"); err != nil {
		return fmt.Errorf("dist: %w", err)
	}
	if _, _, err := g.store.Get(own, min(g.cfg.Timeout, answerTimeout)); err != nil {
		return fmt.Errorf("dist: %w", g.cfg.silent(err))
	}
	deadline := time.Now().Add(g.cfg.Timeout)
	for rank := range g.cfg.Size {
		left := max(time.Until(deadline), time.Millisecond)
		if _, _, err := g.store.Get(g.key("here", strconv.Itoa(rank)), left); err != nil {
			return fmt.Errorf("dist: after %v these of %d ranks have not come to %s: %s", g.cfg.Timeout, g.cfg.Size, g.cfg.address(), g.absent())
		}
	}
	return nil
}

// absent lists the ranks that have not joined, as far as the store still
// answers.
func (g *Group) absent() string {
	var ranks []string
	for rank := range g.cfg.Size {
		if _, ok, err := g.store.Get(g.key("here", strconv.Itoa(rank)), 0); err == nil && !ok {
			ranks = append(ranks, strconv.Itoa(rank))
		}
	}
	return strings.Join(ranks, ", ")
}

// key returns the name of an entry in the store for this attempt.
func (g *Group) key(parts ...string) string {
	return "hcunet/" + strconv.Itoa(g.cfg.Attempt) + "/" + strings.Join(parts, "/")
}

// Rank returns the number of this process, from 0.
func (g *Group) Rank() int { return g.cfg.Rank }

// Size returns the number of processes.
func (g *Group) Size() int { return g.cfg.Size }

// LocalRank returns the number of this process among those of its machine: the
// index of the CUDA device that it uses.
func (g *Group) LocalRank() int { return g.cfg.LocalRank }

// First returns whether this is rank 0, the only rank that writes files.
func (g *Group) First() bool { return g.cfg.Rank == 0 }

// Sum replaces each tensor by its sum over the ranks.
func (g *Group) Sum(tensors ...torch.Tensor) error {
	return g.call("adding tensors up", func() error { return g.device.Sum(tensors...) })
}

// Broadcast replaces each tensor by the tensor of one rank.
func (g *Group) Broadcast(from int, tensors ...torch.Tensor) error {
	return g.call("sending tensors to all", func() error { return g.device.Broadcast(from, tensors...) })
}

// SumWithGradient returns the sum of a tensor over the ranks. Gradients pass
// through the sum. If it fails, it panics with the error, like an operation of
// package nn.
func (g *Group) SumWithGradient(t torch.Tensor) torch.Tensor {
	var out torch.Tensor
	err := g.call("adding up a batch's statistics", func() (err error) {
		out, err = g.device.SumWithGradient(t)
		return err
	})
	if err != nil {
		panic(&shim.Error{Op: "all_reduce", Msg: err.Error()})
	}
	return out
}

// Barrier returns when all ranks have called it.
func (g *Group) Barrier() error { return g.call("waiting for all", g.host.Barrier) }

// SumFloats replaces each number by its sum over the ranks.
func (g *Group) SumFloats(v []float64) error {
	if len(v) == 0 {
		return nil
	}
	return g.call("adding numbers up", func() error {
		t, err := shim.FromSlice(v, shim.Device{}, int64(len(v)))
		if err != nil {
			return err
		}
		if err := g.host.Sum(t); err != nil {
			return err
		}
		return shim.ToSlice(t, v)
	})
}

// GatherBytes returns, on every rank, the bytes that each rank gives, in the
// order of ranks.
func (g *Group) GatherBytes(b []byte) ([][]byte, error) {
	var all [][]byte
	err := g.call("collecting data", func() (err error) {
		all, err = g.gatherBytes(b)
		return err
	})
	return all, err
}

func (g *Group) gatherBytes(b []byte) ([][]byte, error) {
	size, err := shim.FromSlice([]int64{int64(len(b))}, shim.Device{}, 1)
	if err != nil {
		return nil, err
	}
	sizes, err := g.host.Gather(size, g.cfg.Size)
	if err != nil {
		return nil, err
	}
	lengths := make([]int64, g.cfg.Size)
	for i, s := range sizes {
		if err := shim.ToSlice(s, lengths[i:i+1]); err != nil {
			return nil, err
		}
	}
	longest := slices.Max(lengths)
	all := make([][]byte, g.cfg.Size)
	if longest == 0 {
		return all, nil
	}
	padded, err := shim.FromSlice(append(slices.Clip(b), make([]byte, longest-int64(len(b)))...), shim.Device{}, longest)
	if err != nil {
		return nil, err
	}
	parts, err := g.host.Gather(padded, g.cfg.Size)
	if err != nil {
		return nil, err
	}
	for i, p := range parts {
		full := make([]byte, longest)
		if err := shim.ToSlice(p, full); err != nil {
			return nil, err
		}
		all[i] = full[:lengths[i]]
	}
	return all, nil
}

// Agree returns the text of rank 0 on every rank, and an error if the text of
// any rank differs. It is for what must be the same everywhere, such as the
// description of a run.
func (g *Group) Agree(what, text string) error {
	all, err := g.GatherBytes([]byte(text))
	if err != nil {
		return err
	}
	for rank, b := range all {
		if string(b) != string(all[0]) {
			return fmt.Errorf("dist: rank %d has another %s than rank 0; start every process with the same program, files and flags", rank, what)
		}
	}
	return nil
}

// Fail tells the other ranks why this one ends. Only the first error of a group
// is kept. An error that came from another rank is not sent again.
func (g *Group) Fail(err error) {
	var remote *RemoteError
	if err == nil || errors.As(err, &remote) {
		return
	}
	if g.remote() == nil {
		// The store may be gone too; then the other ranks notice that.
		_ = g.store.Set(g.key("error"), strconv.Itoa(g.cfg.Rank)+" "+err.Error())
	}
}

// remote returns the error that another rank wrote to the store, if any.
func (g *Group) remote() error {
	v, ok, err := g.store.Get(g.key("error"), 0)
	if err != nil || !ok {
		return nil
	}
	number, text, _ := strings.Cut(v, " ")
	if rank, err := strconv.Atoi(number); err == nil && rank != g.cfg.Rank {
		return &RemoteError{rank, text}
	}
	return nil
}

// call makes a call. If it fails, the error says which rank failed.
func (g *Group) call(doing string, f func() error) error {
	if g.failed != nil {
		return g.failed
	}
	err := f()
	if err == nil {
		return nil
	}
	g.failed = fmt.Errorf("dist: rank %d of %d, %s: lost another rank, or waited longer than %v for it: %w", g.cfg.Rank, g.cfg.Size, doing, g.cfg.Timeout, err)
	if remote := g.remote(); remote != nil {
		g.failed = remote
	}
	return g.failed
}

// Close leaves the group. Call [Group.Barrier] first if other ranks may still
// be working, because the store ends with rank 0.
func (g *Group) Close() {
	if g.device != nil && g.device != g.host {
		g.device.Close()
	}
	if g.host != nil {
		g.host.Close()
	}
	g.store.Close()
}

// A Reducer sums the gradients of parameters over the ranks, in buckets, while the
// backward pass still computes other gradients.
type Reducer struct {
	group   *Group
	reducer *shim.Reducer
}

// bucketBytes is the size of a bucket, as in torch's DistributedDataParallel.
const bucketBytes = 25 << 20

// NewReducer returns a reducer for parameters. All must require gradients and
// have the same order on every rank.
func (g *Group) NewReducer(params []torch.Tensor) (*Reducer, error) {
	r, err := g.device.NewReducer(params, bucketBytes)
	if err != nil {
		return nil, err
	}
	return &Reducer{g, r}, nil
}

// Prepare says that the next backward pass completes the gradients. Passes before
// it only add to the gradients of this rank.
func (r *Reducer) Prepare() error { return r.reducer.Prepare() }

// Finish waits until every gradient is the sum over the ranks.
func (r *Reducer) Finish() error { return r.group.call("adding gradients up", r.reducer.Finish) }

// FinishRecorded is Finish while operations are recorded, see nn.Record. Nothing is exchanged
// then, so its error does not mean that a rank is lost, and the group can still be used.
func (r *Reducer) FinishRecorded() error { return r.reducer.Finish() }

// Close frees the reducer.
func (r *Reducer) Close() { r.reducer.Close() }

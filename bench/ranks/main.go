// Command ranks measures how training scales with the number of processes on this
// machine, and compares the times with a model of the cost.
//
//	go run ./bench/ranks -n 1,2,4 -batch 2 -size 128
//
// Each process has one thread and computes training steps of the notebook's network.
// In weak scaling every process has a batch of -batch images, in strong scaling the
// processes share a batch of that size. The time of a step is divided into the forward and
// backward pass (during which the processes begin to send gradients), waiting for the
// slowest process, the rest of the communication, and the update of the weights.
//
// The processes share the cores, caches and memory of the machine. To separate this
// effect, each row is also measured with processes that compute the same but exchange
// nothing: the column "apart". The model predicts the time of a step from it:
//
//	apart + 2(n-1)/n * bytes/bandwidth + 2(n-1) * buckets * latency
//
// It assumes no overlap, because Gloo adds on the same cores. Bandwidth and latency are
// measured in the same run, with a ring of two processes. The column "efficiency" compares
// a step with that of one process, the column "of apart" with a step of processes that
// exchange nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/internal/passive"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/unet"
	torch "github.com/wangkuiyi/gotorch"
)

// measured holds the measurements of one run.
type measured struct {
	Compute, Wait, Communicate, Update float64 // seconds of a step, mean over the processes

	Bytes, Buckets     float64 // size of the gradients, and number of messages they are sent in
	Bandwidth, Latency float64 // in bytes/s and s, of a sum over two processes; otherwise 0
}

func (m measured) step() float64 { return m.Compute + m.Wait + m.Communicate + m.Update }

// output is the environment variable with the path of the file into which the first process
// writes its measurements.
const output = "HCUNET_BENCH_RANKS"

func main() {
	passive.Restart()
	counts := flag.String("n", "1,2,4", "numbers of processes")
	batch := flag.Int64("batch", 2, "images of each process in weak scaling, of all processes in strong scaling; a multiple of the numbers of -n")
	size := flag.Int64("size", 128, "width and height of the images")
	steps := flag.Int("steps", 5, "steps that are measured, after one that warms up")
	each := flag.Int64("each", 0, "images of this process; for a process that is started with torchrun's environment variables, of which the first prints the measurements")
	apart := flag.Bool("apart", false, "exchange no gradients; set by the command itself")
	flag.Parse()
	err := errors.New("-n: numbers of processes with commas")
	path := os.Getenv(output)
	if path == "" {
		path = "/dev/stdout"
	}
	if *each > 0 {
		err = process(path, *each, *size, *steps, *apart)
	} else if n, bad := numbers(*counts); bad == nil {
		err = scaling(n, *batch, *size, *steps)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ranks:", err)
		os.Exit(1)
	}
}

func numbers(s string) (n []int64, err error) {
	for part := range strings.SplitSeq(s, ",") {
		v, err := strconv.ParseInt(part, 10, 64)
		if err != nil || v < 1 {
			return nil, errors.New("not a positive number")
		}
		n = append(n, v)
	}
	return n, nil
}

// scaling measures and prints all rows.
func scaling(counts []int64, batch, size int64, steps int) error {
	type row struct {
		n, each int64
		apart   bool
	}
	known := map[row]measured{}
	run := func(n, each int64, apart bool) (measured, error) {
		r := row{n, each, apart && n > 1}
		if m, ok := known[r]; ok {
			return m, nil
		}
		m, err := run(n, each, size, steps, apart)
		known[r] = m
		return m, err
	}
	two, err := run(2, batch, false)
	if err != nil {
		return err
	}
	fmt.Printf("%d cores; gradients of %.0f MB in %.0f buckets; ring of two: %.2f GB/s, %.0f us\n\n", runtime.NumCPU(), two.Bytes/1e6, two.Buckets, two.Bandwidth/1e9, two.Latency*1e6)
	fmt.Printf("%-7s %9s %7s %8s %8s %9s %7s %8s %8s %10s %11s %9s\n", "scaling", "processes", "images", "compute", "wait", "communic.", "update", "step, s", "apart", "predicted", "efficiency", "of apart")
	for _, kind := range []string{"weak", "strong"} {
		for _, n := range counts {
			each := batch
			if kind == "strong" {
				if each = batch / n; each*n != batch {
					fmt.Printf("%-7s %9d: a batch of %d cannot be shared out\n", kind, n, batch)
					continue
				}
			}
			m, err := run(n, each, false)
			if err != nil {
				return err
			}
			apart, err := run(n, each, true)
			if err != nil {
				return err
			}
			one, err := run(1, batch, false)
			if err != nil {
				return err
			}
			base := one.step() // ideal time: in weak scaling that of one process, in strong scaling 1/n of it
			if kind == "strong" {
				base /= float64(n)
			}
			others := float64(n - 1)
			predicted := apart.step() + 2*others/float64(n)*two.Bytes/two.Bandwidth + 2*others*two.Buckets*two.Latency
			fmt.Printf("%-7s %9d %7d %8.3f %8.3f %9.3f %7.3f %8.3f %8.3f %10.3f %10.0f%% %8.0f%%\n",
				kind, n, each*n, m.Compute, m.Wait, m.Communicate, m.Update, m.step(), apart.step(), predicted, 100*base/m.step(), 100*apart.step()/m.step())
		}
	}
	return nil
}

// run starts n processes and returns their measurements.
func run(n, each, size int64, steps int, apart bool) (m measured, err error) {
	dir, err := os.MkdirTemp("", "ranks")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "measured.json")
	if err := os.Setenv(output, path); err != nil {
		return m, err
	}
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	argv := []string{self, "-each", fmt.Sprint(each), "-size", fmt.Sprint(size), "-steps", fmt.Sprint(steps), fmt.Sprintf("-apart=%t", apart)}
	if err := dist.Launch(context.Background(), int(n), argv, nil); err != nil {
		return m, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(text, &m)
}

// process is the work of one of the processes: it measures its steps, and the first process
// writes the measurements to path.
func process(path string, each, size int64, steps int, apart bool) error {
	runtime.LockOSThread()
	if err := nn.SetThreads(1); err != nil {
		return err
	}
	cfg, _, err := dist.FromEnviron(os.Getenv)
	if err != nil {
		return err
	}
	group, err := dist.Open(cfg)
	if err != nil {
		return err
	}
	defer group.Close()
	m, err := measure(group, each, size, steps, apart)
	if err == nil && group.First() {
		var text []byte
		if text, err = json.Marshal(m); err == nil {
			err = os.WriteFile(path, text, 0o666)
		}
	}
	if err != nil {
		group.Fail(err)
		return err
	}
	return group.Barrier()
}

func measure(group *dist.Group, each, size int64, steps int, apart bool) (m measured, err error) {
	in := nn.NewInit(nn.CPU, 1)
	net := unet.New(in, resnet.New34(in, 3), 2, unet.Config{})
	parameters := nn.Parameters(net)
	var tensors []torch.Tensor
	for _, p := range parameters {
		tensors = append(tensors, p.Tensor)
		bytes := 4.0
		for _, n := range nn.Shape(p.Tensor) {
			bytes *= float64(n)
		}
		m.Bytes += bytes
	}
	m.Buckets = max(1, m.Bytes/(25<<20))
	adam, err := nn.DefaultAdam().New([][]nn.Named{parameters})
	if err != nil {
		return m, err
	}
	cross, err := loss.CrossEntropy{}.New(data.Softmax, 2)
	if err != nil {
		return m, err
	}
	x, err := nn.FromSlice(nn.CPU, make([]float32, each*3*size*size), each, 3, size, size)
	if err != nil {
		return m, err
	}
	y, err := nn.FromSlice(nn.CPU, make([]int64, each*size*size), each, size, size)
	if err != nil {
		return m, err
	}
	reducer, err := group.NewReducer(tensors)
	if err != nil {
		return m, err
	}
	defer reducer.Close()
	// lap adds the time since the last call of lap to part, except in the first step.
	var last time.Time
	warm := false
	lap := func(part *float64) {
		now := time.Now()
		if warm && part != nil {
			*part += now.Sub(last).Seconds() / float64(steps)
		}
		last = now
	}
	for i := range steps + 1 {
		warm = i > 0
		if err := group.Barrier(); err != nil {
			return m, err
		}
		lap(nil)
		if !apart {
			err = reducer.Prepare()
		}
		if err != nil {
			return m, err
		}
		nn.Scope(func() { err = nn.Backward(cross.Forward(net.Forward(nn.Train, x), y)) })
		lap(&m.Compute)
		if err = errors.Join(err, group.Barrier()); err != nil {
			return m, err
		}
		lap(&m.Wait)
		if !apart {
			err = reducer.Finish()
		}
		if err != nil {
			return m, err
		}
		lap(&m.Communicate)
		if err := errors.Join(adam.Step([]nn.Hyper{{Rate: 1e-5, Momentum: 0.9}}), nn.ZeroGrad(parameters)); err != nil {
			return m, err
		}
		lap(&m.Update)
	}
	if group.Size() == 2 {
		m.Latency, m.Bandwidth, err = ring(group)
	}
	all := []float64{m.Compute, m.Wait, m.Communicate, m.Update}
	if err = errors.Join(err, group.SumFloats(all)); err != nil {
		return m, err
	}
	n := float64(group.Size())
	m.Compute, m.Wait, m.Communicate, m.Update = all[0]/n, all[1]/n, all[2]/n, all[3]/n
	return m, nil
}

// ring returns the latency of a message in seconds and the bandwidth of a bucket in bytes/s
// between two processes, from the fastest of several sums. A ring of two processes sends
// each number once in each direction, in two messages.
func ring(group *dist.Group) (latency, bandwidth float64, err error) {
	fastest := func(n int64) (seconds float64) {
		t := nn.Zeros(nn.CPU, nn.Float, n)
		for i := range 20 {
			err = errors.Join(err, group.Barrier())
			start := time.Now()
			err = errors.Join(err, group.Sum(t))
			if d := time.Since(start).Seconds(); i == 0 || d < seconds {
				seconds = d
			}
		}
		return seconds
	}
	const bucket = 25 << 20
	nn.Scope(func() {
		latency = fastest(1) / 2
		bandwidth = bucket / (fastest(bucket/4) - 2*latency)
	})
	return latency, bandwidth, err
}

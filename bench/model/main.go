// Command model is the Go side of bench/model.py: it loads weights and then
// times one forward pass or training step of the notebook's network for each line
// of its input.
//
//	go run ./bench/model threads weights.safetensors
//
// Lines are "scores", "forward", "step" or "memory", then the batch and the size
// of its images. The answer is seconds, by the clock and of processor time; for
// scores the values themselves, for memory the peak in MiB.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/unet"
	torch "github.com/wangkuiyi/gotorch"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: model threads weights.safetensors < requests")
	}
	threads, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := nn.SetThreads(threads); err != nil {
		return err
	}
	in := nn.NewInit(nn.CPU, 1)
	net := unet.New(in, resnet.New34(in, 3), 2, unet.Config{DetachSkips: true})
	f, err := checkpoint.OpenSafetensors(os.Args[2])
	if err != nil {
		return err
	}
	if err := nn.LoadState(net, f); err != nil {
		return err
	}
	parameters := nn.Parameters(net)
	adam, err := nn.DefaultAdam().New([][]nn.Named{parameters})
	if err != nil {
		return err
	}
	fmt.Println("ready: libtorch", nn.LibtorchVersion(), "threads", nn.Threads())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var what string
		var n, size int64
		if _, err := fmt.Sscan(lines.Text(), &what, &n, &size); err != nil {
			return fmt.Errorf("model: request %q: %w", lines.Text(), err)
		}
		var answer string
		err := nn.Try(func() { answer, err = run(net, adam, parameters, what, n, size) })
		if err != nil {
			return err
		}
		fmt.Println(answer)
	}
	return lines.Err()
}

// crossEntropy is the loss of the benchmark.
var crossEntropy = loss.Must(loss.CrossEntropy{}.New(data.Softmax, 2))

func run(net *unet.Net, adam nn.Optimizer, parameters []nn.Named, what string, n, size int64) (answer string, err error) {
	nn.Scope(func() {
		pixels := make([]float32, n*3*size*size)
		for i := range pixels { // as model.py has it
			pixels[i] = float32(i%251)/125 - 1
		}
		var x, y torch.Tensor
		if x, err = nn.FromSlice(nn.CPU, pixels, n, 3, size, size); err != nil {
			return
		}
		if y, err = nn.FromSlice(nn.CPU, make([]int64, n*size*size), n, size, size); err != nil {
			return
		}
		start, cpu := time.Now(), processorTime()
		seconds := func() string {
			return fmt.Sprint(time.Since(start).Seconds(), " ", (processorTime() - cpu).Seconds())
		}
		switch what {
		case "scores", "forward":
			var scores torch.Tensor
			nn.NoGrad(func() { scores = net.Forward(nn.Eval, x) })
			answer = seconds()
			if what == "scores" {
				var v []float32
				v, err = nn.Slice[float32](scores)
				answer = strings.Trim(fmt.Sprint(v), "[]")
			}
		case "step":
			nn.Scope(func() { err = nn.Backward(crossEntropy.Forward(net.Forward(nn.Train, x), y)) })
			if err == nil {
				err = adam.Step([]nn.Hyper{{Rate: 1e-5, Momentum: 0.9}})
			}
			if err == nil {
				err = nn.ZeroGrad(parameters)
			}
			answer = seconds()
		case "memory":
			answer = fmt.Sprint(usage().Maxrss / 1024)
		default:
			err = fmt.Errorf("model: unknown request %q", what)
		}
	})
	return answer, err
}

func usage() (u syscall.Rusage) {
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u
}

// processorTime is the time all threads of this process have run for.
func processorTime() time.Duration {
	u := usage()
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

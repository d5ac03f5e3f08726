// Command speed is hcunet's side of bench/speed.py: it loads weights and then times
// one forward pass or training step of the notebook's network for each line of its
// input.
//
//	go run ./bench/speed threads weights.safetensors
//
// torch_side.py describes the lines that it reads and writes.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
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

// A request is a line of the input.
type request struct {
	Do        string
	Precision string
	Batch     int64
	Size      int64
}

func serve() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: speed threads weights.safetensors < requests")
	}
	threads, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := nn.SetThreads(threads); err != nil {
		return err
	}
	s, err := newSide(os.Args[2])
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]string{"ready": fmt.Sprintf("libtorch %s, %d threads", nn.LibtorchVersion(), nn.Threads())}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return err
		}
		answer, err := s.answer(r)
		if err != nil {
			answer = map[string]any{"error": err.Error()}
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

// A side holds the network and its optimizer and loss.
type side struct {
	net        *unet.Net
	parameters []nn.Named
	adam       nn.Optimizer
	loss       loss.Loss
}

func newSide(weights string) (*side, error) {
	in := nn.NewInit(nn.CPU, 1)
	s := &side{net: unet.New(in, resnet.New34(in, 3), 2, unet.Config{DetachSkips: true})}
	f, err := checkpoint.OpenSafetensors(weights)
	if err != nil {
		return nil, err
	}
	if err := nn.LoadState(s.net, f); err != nil {
		return nil, err
	}
	s.parameters = nn.Parameters(s.net)
	if s.adam, err = nn.DefaultAdam().New([][]nn.Named{s.parameters}); err != nil {
		return nil, err
	}
	s.loss, err = loss.CrossEntropy{}.New(data.Softmax, 2)
	return s, err
}

func (s *side) answer(r request) (answer map[string]any, err error) {
	switch r.Do {
	case "memory":
		var u syscall.Rusage
		err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return map[string]any{"mib": float64(u.Maxrss) / 1024}, err
	case "scores", "forward", "step":
	default:
		return nil, fmt.Errorf("%q is not known", r.Do)
	}
	failed := nn.Try(func() {
		nn.Scope(func() {
			var x, y torch.Tensor
			if x, y, err = batch(r); err != nil {
				return
			}
			if r.Do == "step" {
				start := time.Now()
				err = s.step(r.Precision, x, y)
				answer = map[string]any{"seconds": time.Since(start).Seconds()}
				return
			}
			var scores []float32
			start := time.Now()
			scores, err = s.forward(r.Precision, x)
			answer = map[string]any{"seconds": time.Since(start).Seconds()}
			if r.Do == "scores" {
				answer["scores"] = scores
			}
		})
	})
	if failed != nil {
		err = failed
	}
	return answer, err
}

// batch returns the images of torch_side.py and targets of zeros.
func batch(r request) (x, y torch.Tensor, err error) {
	pixels := make([]float32, r.Batch*3*r.Size*r.Size)
	for i := range pixels {
		pixels[i] = float32(i%251)/125 - 1
	}
	if x, err = nn.FromSlice(nn.CPU, pixels, r.Batch, 3, r.Size, r.Size); err != nil {
		return x, y, err
	}
	y, err = nn.FromSlice(nn.CPU, make([]int64, r.Batch*r.Size*r.Size), r.Batch, r.Size, r.Size)
	return x, y, err
}

// in runs f with autocast if precision is bfloat16.
func in(precision string, f func()) {
	if precision == "bfloat16" {
		nn.Autocast(nn.CPU, nn.BFloat16, f)
	} else {
		f()
	}
}

// forward returns the scores of images.
func (s *side) forward(precision string, x torch.Tensor) ([]float32, error) {
	var scores torch.Tensor
	nn.NoGrad(func() { in(precision, func() { scores = s.net.Forward(nn.Eval, x) }) })
	return nn.Slice[float32](scores)
}

// step makes one training step.
func (s *side) step(precision string, x, y torch.Tensor) (err error) {
	nn.Scope(func() {
		var l torch.Tensor
		in(precision, func() { l = nn.Result(func() torch.Tensor { return s.loss.Forward(s.net.Forward(nn.Train, x), y) }) })
		err = nn.Backward(l)
	})
	if err != nil {
		return err
	}
	if err := s.adam.Step([]nn.Hyper{{Rate: 1e-5, Momentum: 0.9}}); err != nil {
		return err
	}
	return nn.DropGrad(s.parameters)
}

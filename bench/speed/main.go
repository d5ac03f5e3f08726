// Command speed is hcunet's side of bench/speed.py: it loads weights and then times
// one forward pass or training step of the notebook's network for each line of its
// input.
//
//	go run ./bench/speed device threads weights.safetensors
//
// torch_side.py describes the lines that it reads and writes.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
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
	Times     int
}

func serve() error {
	if len(os.Args) != 4 {
		return fmt.Errorf("usage: speed device threads weights.safetensors < requests")
	}
	device, err := nn.ParseDevice(os.Args[1])
	if err != nil {
		return err
	}
	threads, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := nn.SetThreads(threads); err != nil {
		return err
	}
	nn.SearchConvolutions(true)
	sides := map[string]*side{} // by precision
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
		if r.Do == "memory" { // of this process, with the networks that were asked for so far
			var u syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
				return err
			}
			if err := out.Encode(map[string]any{"mib": float64(u.Maxrss) / 1024}); err != nil {
				return err
			}
			continue
		}
		if sides[r.Precision] == nil {
			if sides[r.Precision], err = newSide(device, r.Precision, os.Args[3]); err != nil {
				return err
			}
		}
		answer, err := sides[r.Precision].answer(r)
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
	device     nn.Device
	precision  string
	net        *unet.Net
	parameters []nn.Named
	adam       nn.Optimizer // from the first step on
	loss       loss.Loss
	recorded   map[[3]int64]*recording // on CUDA, as package train does it
	values     []float32               // what a recorded forward pass returned
}

// A recording is a step's or a forward pass's operations for batches of one size.
type recording struct {
	graph *nn.Graph
	x, y  torch.Tensor
}

func newSide(d nn.Device, precision, weights string) (*side, error) {
	f, err := checkpoint.OpenSafetensors(weights)
	if err != nil {
		return nil, err
	}
	in := &nn.Init{Device: d, Blank: true}
	s := &side{device: d, precision: precision, recorded: map[[3]int64]*recording{}, net: unet.New(in, resnet.New34(in, 3), 2, unet.Config{DetachSkips: true})}
	err = nn.LoadState(s.net, f)
	if err == nil && s.tensorCores() {
		err = nn.SetChannelsLast(s.net)
	}
	if err != nil {
		return nil, err
	}
	f = nil
	debug.FreeOSMemory() // of the file, so that it does not count as the first request's
	s.parameters = nn.Parameters(s.net)
	s.loss, err = loss.CrossEntropy{}.New(data.Softmax, 2)
	return s, err
}

func (s *side) tensorCores() bool { return s.device.CUDA() && s.precision != "float32" }

func (s *side) answer(r request) (answer map[string]any, err error) {
	switch r.Do {
	case "step":
		if s.adam == nil {
			if s.adam, err = nn.DefaultAdam().New([][]nn.Named{s.parameters}); err != nil {
				return nil, err
			}
		}
	case "scores", "forward":
	default:
		return nil, fmt.Errorf("%q is not known", r.Do)
	}
	failed := nn.Try(func() {
		nn.Scope(func() {
			var x, y torch.Tensor
			if x, y, err = s.batch(r); err != nil {
				return
			}
			if r.Do == "scores" {
				var scores []float32
				scores, err = s.forward(x)
				answer = map[string]any{"scores": scores}
				return
			}
			one := pass(func() (*nn.Reading[float32], error) {
				if r.Do == "step" {
					return nil, s.step(x, y)
				}
				_, err := s.forward(x)
				return nil, err
			})
			if s.device.CUDA() {
				if one, err = s.repeated(r, x, y, one); err != nil {
					return
				}
			}
			var seconds float64
			seconds, err = s.timed(max(r.Times, 1), one)
			answer = map[string]any{"seconds": seconds}
		})
	})
	if failed != nil {
		err = failed
	}
	return answer, err
}

// A pass is a step or a forward pass. The values that it returns, if there are any, are on their way.
type pass func() (*nn.Reading[float32], error)

// timed returns the mean time of one of several passes. The values of a pass are taken after the
// next one was asked for, as package train does it: the device computes in the meantime.
func (s *side) timed(times int, f pass) (seconds float64, err error) {
	if err := s.device.Synchronize(); err != nil {
		return 0, err
	}
	start := time.Now()
	var before *nn.Reading[float32]
	for range times {
		reading, err := f()
		if err == nil {
			err = s.take(before)
		}
		if err != nil {
			return 0, err
		}
		before = reading
	}
	if err := s.take(before); err != nil {
		return 0, err
	}
	err = s.device.Synchronize()
	return time.Since(start).Seconds() / float64(times), err
}

// take waits for what was read, if anything was.
func (s *side) take(r *nn.Reading[float32]) error {
	if r == nil {
		return nil
	}
	return r.CopyTo(s.values)
}

// batch returns the images of torch_side.py and targets of zeros.
func (s *side) batch(r request) (x, y torch.Tensor, err error) {
	pixels := make([]float32, r.Batch*3*r.Size*r.Size)
	for i := range pixels {
		pixels[i] = float32(i%251)/125 - 1
	}
	if x, err = nn.FromSlice(s.device, pixels, r.Batch, 3, r.Size, r.Size); err != nil {
		return x, y, err
	}
	if s.tensorCores() {
		x = nn.ChannelsLast(x)
	}
	y, err = nn.FromSlice(s.device, make([]int64, r.Batch*r.Size*r.Size), r.Batch, r.Size, r.Size)
	return x, y, err
}

// in runs f with autocast if the precision is bfloat16.
func (s *side) in(f func()) {
	if s.precision == "bfloat16" {
		nn.Autocast(s.device, nn.BFloat16, f)
	} else {
		f()
	}
}

// repeated returns a pass that does what one does, but by recorded operations.
func (s *side) repeated(r request, x, y torch.Tensor, one pass) (pass, error) {
	kind := int64(0)
	if r.Do == "step" {
		kind = 1
	}
	key := [3]int64{kind, r.Batch, r.Size}
	rec := s.recorded[key]
	if rec == nil {
		for range 2 {
			if _, err := one(); err != nil {
				return nil, err
			}
		}
		rec = &recording{x: x, y: y}
		var err error
		rec.graph, err = nn.Record(s.device, func() []torch.Tensor {
			if kind == 0 {
				return []torch.Tensor{s.scores(x)}
			}
			if err := s.gradients(x, y); err != nil {
				panic(err)
			}
			grads := make([]torch.Tensor, len(s.parameters))
			for i, p := range s.parameters {
				grads[i], _ = nn.Grad(p.Tensor)
			}
			return grads
		})
		if err != nil {
			return nil, err
		}
		results, err := rec.graph.Replay()
		if err != nil {
			return nil, err
		}
		nn.Keep(append(results, x, y)...) // they outlive this request
		s.recorded[key] = rec
	}
	if kind == 0 {
		s.values = make([]float32, r.Batch*2*r.Size*r.Size)
	}
	return func() (*nn.Reading[float32], error) {
		nn.CopyInto(rec.x, x)
		nn.CopyInto(rec.y, y)
		results, err := rec.graph.Replay()
		if err != nil {
			return nil, err
		}
		if kind == 0 {
			return nn.BeginRead[float32](results[0])
		}
		for i, p := range s.parameters {
			nn.SetGrad(p.Tensor, results[i])
		}
		return nil, s.update()
	}, nil
}

// scores returns the scores of images.
func (s *side) scores(x torch.Tensor) (y torch.Tensor) {
	nn.NoGrad(func() { s.in(func() { y = nn.Result(func() torch.Tensor { return s.net.Forward(nn.Eval, x) }) }) })
	return y
}

func (s *side) forward(x torch.Tensor) (scores []float32, err error) {
	nn.Scope(func() { scores, err = nn.Slice[float32](s.scores(x)) })
	return scores, err
}

// gradients computes the gradients of a batch.
func (s *side) gradients(x, y torch.Tensor) (err error) {
	nn.Scope(func() {
		var l torch.Tensor
		s.in(func() { l = nn.Result(func() torch.Tensor { return s.loss.Forward(s.net.Forward(nn.Train, x), y) }) })
		err = nn.Backward(l)
	})
	return err
}

// step makes one training step.
func (s *side) step(x, y torch.Tensor) error {
	if err := s.gradients(x, y); err != nil {
		return err
	}
	return s.update()
}

// update changes the parameters by their gradients, which it removes.
func (s *side) update() error {
	if err := s.adam.Step([]nn.Hyper{{Rate: 1e-5, Momentum: 0.9}}); err != nil {
		return err
	}
	return nn.DropGrad(s.parameters)
}

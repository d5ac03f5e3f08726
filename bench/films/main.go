// Command films is hcunet's side of bench/films.py: it opens a model and predicts the
// film that each line of its input names. It answers each line with the seconds, the
// number of pixels in the mask and the highest probability, and the line "memory" with its
// peak memory in MiB.
//
//	films [-engine onnx -provider openvino ...] model.safetensors
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"syscall"
	"time"

	"github.com/hcunet/hcunet/internal/engine"
	"github.com/hcunet/hcunet/internal/passive"
	"github.com/hcunet/hcunet/internal/usage"
	"github.com/hcunet/hcunet/predict"
)

func main() {
	passive.Restart()
	usage.Exit("films", run())
}

func run() error {
	var chosen engine.Flags
	chosen.Add(flag.CommandLine)
	flag.Parse()
	path := flag.Arg(0)
	start := time.Now()
	a, err := engine.Read(path)
	if err != nil {
		return err
	}
	backend, err := chosen.Backend(path)
	if err != nil {
		return err
	}
	p, err := predict.New(a, backend, nil)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]float64{"opened": time.Since(start).Seconds()}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		answer, err := predicted(p, lines.Text())
		if err != nil {
			return err
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return errors.Join(lines.Err(), p.Close())
}

func predicted(p *predict.Predictor, film string) (map[string]float64, error) {
	if film == "memory" {
		var u syscall.Rusage
		err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return map[string]float64{"mib": float64(u.Maxrss) / 1024}, err
	}
	start := time.Now()
	r, err := p.File(context.Background(), film)
	if err != nil {
		return nil, err
	}
	seconds := time.Since(start).Seconds()
	return map[string]float64{"seconds": seconds, "pixels": float64(r.Findings[0].Pixels), "highest": r.Findings[0].Highest}, nil
}

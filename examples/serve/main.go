// Command serve predicts films over HTTP with a model that kfold or export has written. It
// takes DICOM, PNG and JPEG files and answers with JSON, masks and overlays. It also has a
// page for a browser, to which one can drag films.
//
//	serve -model runs/siim/model.safetensors
//	curl --data-binary @film.dcm localhost:8080/predict
//	curl --data-binary @film.dcm localhost:8080/predict/overlay -o overlay.png
//
// Package predict/service describes all paths, docs/service.md how to run the service. For
// research use, not for diagnosis.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	_ "github.com/hcunet/hcunet/data/dicom/codec" // JPEG 2000, with -tags dicomcodec
	"github.com/hcunet/hcunet/internal/engine"
	"github.com/hcunet/hcunet/internal/passive"
	"github.com/hcunet/hcunet/internal/usage"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/service"
)

func main() {
	passive.Restart()
	usage.Exit("serve", run(os.Args[1:]))
}

var help = usage.Text{
	Line:  "serve -model FILE [-listen ADDRESS] [flags]",
	About: "Answers films over HTTP. Results are for research use, not for diagnosis.",
	Examples: []string{
		"serve -model runs/siim/model.safetensors",
		"curl --data-binary @film.dcm localhost:8080/predict",
		"curl --data-binary @film.dcm localhost:8080/predict/mask -o mask.png",
	},
	Groups: []usage.Group{
		{Heading: "the model", Flags: append([]string{"model", "no-flip", "tiles"}, engine.Names...)},
		{Heading: "limits", Flags: []string{"queue", "max-body", "max-pixels", "receive", "answer", "connections"}},
		{Heading: "the service", Flags: []string{"listen", "drain", "grace"}},
	},
}

func run(args []string) error {
	var chosen engine.Flags
	opt := service.Options{Log: slog.New(slog.NewJSONHandler(os.Stderr, nil))}
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	model := flags.String("model", "", "model `file`, as kfold writes it, or export")
	chosen.Add(flags)
	flags.IntVar(&opt.Queue, "queue", 16, "`films` at work or waiting, at most; others are answered 429")
	flags.Int64Var(&opt.MaxBody, "max-body", 64, "`MiB` of a film's file, at most")
	pixels := flags.Int("max-pixels", 32, "`millions` of pixels of a film, at most")
	flags.DurationVar(&opt.Receive, "receive", 30*time.Second, "`time` for a film to arrive")
	flags.DurationVar(&opt.Answer, "answer", time.Minute, "`time` for an answer after that")
	flags.IntVar(&opt.Connections, "connections", 4096, "`connections` at a time; more wait")
	listen := flags.String("listen", "localhost:8080", "`address`; :8080 is that of all interfaces")
	flags.DurationVar(&opt.Drain, "drain", 0, "`time` between SIGTERM, when /readyz says no, and the end of accepting connections")
	flags.DurationVar(&opt.Grace, "grace", 30*time.Second, "`time` after that for requests to end")
	if err := usage.Parse(flags, args, os.Stdout, help); err != nil {
		return err
	}
	if *model == "" {
		return errors.New("which model? Give -model; see -h")
	}
	opt.MaxBody <<= 20
	a, err := engine.Read(*model)
	if err != nil {
		return err
	}
	backend, err := chosen.Backend(*model)
	if err != nil {
		return err
	}
	how := predict.Options{MaxPixels: *pixels * 1e6, Queue: opt.Queue}
	chosen.Apply(&how)
	p, err := predict.New(a, backend, &how)
	if err != nil {
		return err
	}
	defer p.Close()
	s, err := service.New(p, &opt)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Printf("%s\nhttp://%s\n", strings.Join(p.Model().Notices(), "\n"), l.Addr())
	ctx, stop := usage.Interruptible(nil)
	defer stop()
	return s.Serve(ctx, l)
}

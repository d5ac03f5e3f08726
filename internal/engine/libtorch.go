//go:build !nolibtorch

package engine

import (
	"flag"

	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/libtorch"
)

const (
	standard = "libtorch"
	engines  = "`libtorch`, or onnx for ONNX Runtime"
)

func (f *Flags) addDevice(set *flag.FlagSet) {
	set.StringVar(&f.device, "device", "auto", "of libtorch: `auto`, cpu, cuda or cuda:N")
}

func (f *Flags) libtorch() (predict.Backend, error) {
	b := libtorch.Backend{Threads: f.threads}
	if err := b.Precision.UnmarshalText([]byte(f.precision)); err != nil {
		return nil, err
	}
	var err error
	b.Device, err = nn.ParseDevice(f.device)
	return b, err
}

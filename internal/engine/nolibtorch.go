//go:build nolibtorch

package engine

import (
	"errors"
	"flag"

	"github.com/hcunet/hcunet/predict"
)

const (
	standard = "onnx"
	engines  = "`onnx`, for ONNX Runtime, as this program was built without libtorch"
)

func (f *Flags) addDevice(*flag.FlagSet) { f.device = "cpu" }

func (f *Flags) libtorch() (predict.Backend, error) {
	return nil, errors.New("this program was built without libtorch, by the tag nolibtorch; take -engine onnx")
}

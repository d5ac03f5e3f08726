// Package encoder says what the encoder of a segmentation network is, and knows
// encoders by name: widths, strides, layer groups, published weights.
//
// An encoder's package registers its kinds when it is imported, as package image's
// formats do:
//
//	import _ "github.com/hcunet/hcunet/resnet"
package encoder

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// An Encoder maps an image to maps at falling sizes. *resnet.Encoder is one.
type Encoder interface {
	nn.Module
	// Kind returns what is known of all encoders of this kind.
	Kind() Kind
	// InChannels returns the number of channels of an image.
	InChannels() int64
	// Features returns maps of images x (N, InChannels, H, W): map i has
	// Kind().Widths[i] channels and 1/Kind().Strides[i] of the size, rounded up.
	Features(mode nn.Mode, x torch.Tensor) []torch.Tensor
	// LoadWeights copies published weights of this kind, without their classifier.
	LoadWeights(f *checkpoint.File) error
}

// A Kind is an architecture of an encoder.
type Kind struct {
	Name    string  // such as "resnet34"
	Widths  []int64 // channels of each map
	Strides []int64 // of each map: how many pixels of the image one of its own is wide

	// Layer groups have a learning rate of their own; Group returns that of a tensor
	// by its name in the encoder's state, 0 for the earliest to Groups-1.
	Groups int
	Group  func(name string) int

	Weights []Weights // published ones, the newest first
	New     func(in *nn.Init, channels int64) Encoder
}

// Weights are published weights of an encoder.
type Weights struct {
	Name      string    // of the file without its ending, such as "resnet34-b627a593"
	Mean, Std []float64 // per channel, of the images it was trained on, values in [0, 1]
}

// SHA256 returns the first digits of the file's SHA-256, which torchvision puts
// behind the last hyphen of its name.
func (w Weights) SHA256() string { return w.Name[strings.LastIndexByte(w.Name, '-')+1:] }

var (
	mutex sync.RWMutex
	kinds = map[string]Kind{}
)

// Register makes a kind known under its name. It panics if the kind is incomplete
// or its name is taken.
func Register(k Kind) {
	mutex.Lock()
	defer mutex.Unlock()
	if _, ok := kinds[k.Name]; ok {
		panic(fmt.Errorf("encoder: %q is registered already", k.Name))
	}
	if k.Name == "" || k.New == nil || k.Group == nil || k.Groups < 1 || len(k.Widths) == 0 || len(k.Widths) != len(k.Strides) {
		panic(fmt.Errorf("encoder: %q lacks a name, widths, a stride for each, layer groups or a constructor", k.Name))
	}
	kinds[k.Name] = k
}

// Find returns the kind of a name.
func Find(name string) (Kind, error) {
	mutex.RLock()
	defer mutex.RUnlock()
	k, ok := kinds[name]
	if !ok {
		return Kind{}, fmt.Errorf("encoder: %q is not known, wanted %s", name, strings.Join(slices.Sorted(maps.Keys(kinds)), " or "))
	}
	return k, nil
}

// Names returns the names of all kinds, sorted.
func Names() []string {
	mutex.RLock()
	defer mutex.RUnlock()
	return slices.Sorted(maps.Keys(kinds))
}

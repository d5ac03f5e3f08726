// Package encoder defines the interface of a segmentation network's encoder and keeps a
// registry of encoders by name, with their widths, strides, layer groups and published
// weights.
//
// The package of an encoder registers its kinds when it is imported, as packages of
// image formats register with package image:
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

// An Encoder computes feature maps of falling sizes from an image.
// *resnet.Encoder is one.
type Encoder interface {
	nn.Module
	// Kind returns the properties of all encoders of this kind.
	Kind() Kind
	// InChannels returns the number of channels of an input image.
	InChannels() int64
	// Features returns the feature maps of images x (N, InChannels, H, W). Map i
	// has Kind().Widths[i] channels; its size is that of the image divided by
	// Kind().Strides[i], rounded up.
	Features(mode nn.Mode, x torch.Tensor) []torch.Tensor
	// LoadWeights copies published weights of this kind into the encoder. It ignores the
	// weights of a classifier.
	LoadWeights(f *checkpoint.File) error
}

// A Kind is an architecture of an encoder.
type Kind struct {
	Name    string  // such as "resnet34"
	Widths  []int64 // channels of each map
	Strides []int64 // of each map: how many pixels of the image one of its pixels is wide

	// Groups is the number of layer groups, each of which has its own learning rate.
	// Group returns the group of a tensor by its name in the state of the encoder,
	// from 0 for the earliest layers to Groups-1.
	Groups int
	Group  func(name string) int

	Weights []Weights // published weights, the newest first
	// New returns an encoder with random weights for images of the given number of channels.
	New func(in *nn.Init, channels int64) Encoder
}

// Weights describes published weights of an encoder.
type Weights struct {
	Name      string    // file name without extension, such as "resnet34-b627a593"
	Mean, Std []float64 // of each channel of the training images, for values in [0, 1]
}

// SHA256 returns the first hexadecimal digits of the file's SHA-256. torchvision writes
// them after the last hyphen of the name.
func (w Weights) SHA256() string { return w.Name[strings.LastIndexByte(w.Name, '-')+1:] }

var (
	mutex sync.RWMutex
	kinds = map[string]Kind{}
)

// Register adds a kind to the registry. It panics if the kind is incomplete or a kind of
// that name is already registered.
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

// Find returns the kind with that name, or an error that lists the known names.
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

package unet

import "github.com/hcunet/hcunet/network"

// Config are the choices of a network; they live in a package that needs no libtorch.
type Config = network.Config

// A Blur says which upsampling steps end in a 2x2 average.
type Blur = network.Blur

const (
	BlurAll   = network.BlurAll
	BlurInner = network.BlurInner
	BlurNone  = network.BlurNone
)

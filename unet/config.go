package unet

import "github.com/hcunet/hcunet/network"

// Config holds the options of a network. It is defined in package network, which does
// not need libtorch.
type Config = network.Config

// A Blur says which upsampling steps end in a 2x2 average.
type Blur = network.Blur

const (
	BlurAll   = network.BlurAll
	BlurInner = network.BlurInner
	BlurNone  = network.BlurNone
)

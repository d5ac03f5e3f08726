// Package testdevice gives tests the device on which they compare a network with its
// reference.
package testdevice

import (
	"os"
	"testing"

	"github.com/hcunet/hcunet/nn"
)

// Device is the device that the environment variable HCUNET_DEVICE names, such as
// "cuda:0"; the CPU if it is not set.
var Device = device()

func device() nn.Device {
	name := os.Getenv("HCUNET_DEVICE")
	if name == "" {
		return nn.CPU
	}
	d, err := nn.ParseDevice(name)
	if err != nil {
		panic(err)
	}
	return d
}

// Repeatable skips a test that compares two runs to the last bit on a GPU, which adds
// numbers in any order.
func Repeatable(t testing.TB) {
	t.Helper()
	if Device.CUDA() {
		t.Skip("two runs on a GPU differ by rounding")
	}
}

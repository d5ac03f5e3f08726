package train

import (
	"testing"

	"github.com/hcunet/hcunet/nn"
)

// RecordAlways lets learners record on every device, and returns a function that lets them
// do so on CUDA only.
func RecordAlways() (restore func()) {
	recordsOn = func(nn.Device) bool { return true }
	return func() { recordsOn = nn.Device.CUDA }
}

// Recording is RecordAlways until the test ends.
func Recording(t testing.TB) { t.Cleanup(RecordAlways()) }

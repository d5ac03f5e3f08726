package golden

import (
	"math"
	"testing"
)

// The bits of wgen_check.json, "input": golden/scripts/wgen.py, numpy 1.24.2.
func TestUnit(t *testing.T) {
	want := []uint32{0xbf4deac2, 0x3e9c045c, 0xbf17be90, 0xbee6f7fc}
	for i, v := range Unit("input", 4) {
		if math.Float32bits(v) != want[i] {
			t.Errorf("element %d: %x, want %x", i, math.Float32bits(v), want[i])
		}
	}
}

// wgen_check.json, "fill layers.0.1.running_var first4".
func TestFill(t *testing.T) {
	want := []uint32{0x3f85950e, 0x3f85ec70, 0x3f220fee, 0x3f511912}
	for i, v := range Fill("layers.0.1.running_var", 4, 1, 0.5) {
		if math.Float32bits(v) != want[i] {
			t.Errorf("element %d: %x, want %x", i, math.Float32bits(v), want[i])
		}
	}
}

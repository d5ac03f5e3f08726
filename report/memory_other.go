//go:build !linux

package report

// residentMemory returns 0: each system has its own way to ask for it. The bar
// then does not show it.
func residentMemory() int64 { return 0 }

package shim

// #include "shim.h"
import "C"

import (
	"errors"
	"runtime"
	"unsafe"
)

// A Graph is a sequence of operations that was recorded on a CUDA device.
type Graph struct{ p unsafe.Pointer }

// NoGraphs returns why a program cannot record graphs, nil if it can.
func NoGraphs() error { return check("graphs", C.hcunet_no_graphs()) }

// Record records the operations of f on a CUDA device, without doing them. f must not
// read a value from the device.
func Record(device int, f func() error) (*Graph, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g := &Graph{}
	if err := check("record", C.hcunet_graph_begin(C.int(device), &g.p)); err != nil {
		return nil, err
	}
	err := f()
	err = errors.Join(err, check("record", C.hcunet_graph_end(g.p)))
	if err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// Replay does the operations, after those that the device was given before.
func (g *Graph) Replay() error { return check("replay", C.hcunet_graph_replay(g.p)) }

// Close frees the graph and the memory of tensors that its operations made.
func (g *Graph) Close() {
	C.hcunet_graph_free(g.p)
	g.p = nil
}

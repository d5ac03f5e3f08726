package shim

// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"runtime"
	"time"
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// NoProcesses says why process groups, on CUDA or on the CPU, are not to be had, nil where
// they are.
func NoProcesses(cuda bool) error { return check("c10d", C.hcunet_no_processes(cbool(cuda))) }

// A Store is c10d's TCPStore: a table of texts that the processes of a job share.
type Store struct{ p unsafe.Pointer }

// OpenStore connects to the store at host and port, which the process with serve
// keeps. It waits until the store answers, at most timeout.
func OpenStore(host string, port int, serve bool, timeout time.Duration) (*Store, error) {
	h := C.CString(host)
	defer C.free(unsafe.Pointer(h))
	s := &Store{}
	err := check("TCPStore", C.hcunet_store_open(h, C.int(port), cbool(serve), C.int64_t(timeout.Milliseconds()), &s.p))
	return s, err
}

// Set makes key's value known to all.
func (s *Store) Set(key, value string) error {
	k, v := C.CString(key), C.CString(value)
	defer C.free(unsafe.Pointer(k))
	defer C.free(unsafe.Pointer(v))
	return check("TCPStore.set", C.hcunet_store_set(s.p, k, v))
}

// Get returns key's value; with a timeout it waits for it that long, which is an
// error when it passes, and without one ok says whether there is a value now.
func (s *Store) Get(key string, timeout time.Duration) (value string, ok bool, err error) {
	k := C.CString(key)
	defer C.free(unsafe.Pointer(k))
	var v *C.char
	if err := check("TCPStore.get", C.hcunet_store_get(s.p, k, C.int64_t(timeout.Milliseconds()), &v)); err != nil || v == nil {
		return "", false, err
	}
	defer C.hcunet_free(unsafe.Pointer(v))
	return C.GoString(v), true, nil
}

// Close ends the connection, and the store where this process keeps it.
func (s *Store) Close() {
	C.hcunet_store_close(s.p)
	s.p = nil
}

// A Group is a c10d process group. All ranks make the same calls in the same order.
type Group struct{ p unsafe.Pointer }

// OpenGroup joins the group of that name in the store, which has size ranks;
// backend is "gloo" or "nccl". Calls fail that wait longer than timeout. Gloo
// talks over the named network interface, or the one that the host's name leads
// to if it is "".
func OpenGroup(s *Store, backend, name string, rank, size int, timeout time.Duration, iface string) (*Group, error) {
	b, n, i := C.CString(backend), C.CString(name), C.CString(iface)
	defer C.free(unsafe.Pointer(b))
	defer C.free(unsafe.Pointer(n))
	defer C.free(unsafe.Pointer(i))
	g := &Group{}
	err := check(backend, C.hcunet_group_open(s.p, b, n, C.int(rank), C.int(size), C.int64_t(timeout.Milliseconds()), i, &g.p))
	return g, err
}

// Close leaves the group. Nothing may be under way.
func (g *Group) Close() {
	C.hcunet_group_close(g.p)
	g.p = nil
}

// Sum replaces each tensor by its sum over the ranks.
func (g *Group) Sum(tensors ...torch.Tensor) error {
	return withAll("all_reduce", tensors, func(p *unsafe.Pointer, n C.int64_t) *C.char { return C.hcunet_group_sum(g.p, p, n) })
}

// Broadcast replaces each tensor by that of one rank.
func (g *Group) Broadcast(from int, tensors ...torch.Tensor) error {
	return withAll("broadcast", tensors, func(p *unsafe.Pointer, n C.int64_t) *C.char {
		return C.hcunet_group_broadcast(g.p, p, n, C.int(from))
	})
}

// Gather returns t as each of the size ranks has it, all of one shape.
func (g *Group) Gather(t torch.Tensor, size int) ([]torch.Tensor, error) {
	out := make([]unsafe.Pointer, size)
	err := with("all_gather", t, func(p unsafe.Pointer) *C.char {
		return C.hcunet_group_gather(g.p, p, unsafe.SliceData(out), C.int64_t(size))
	})
	if err != nil {
		return nil, err
	}
	tensors := make([]torch.Tensor, size)
	for i := range tensors {
		tensors[i] = wrap(out[i])
	}
	return tensors, nil
}

// Barrier returns when all ranks have called it.
func (g *Group) Barrier() error { return check("barrier", C.hcunet_group_barrier(g.p)) }

// SumWithGradient returns the sum of t over the ranks, through which gradients
// pass: each rank's is the sum of the gradients of all.
func (g *Group) SumWithGradient(t torch.Tensor) (torch.Tensor, error) {
	var out unsafe.Pointer
	err := with("all_reduce", t, func(p unsafe.Pointer) *C.char { return C.hcunet_group_sum_with_gradient(g.p, p, &out) })
	if err != nil {
		return torch.Tensor{}, err
	}
	return wrap(out), nil
}

// A Reducer sums the gradients of parameters over the ranks of a group, in
// buckets, during the backward pass.
type Reducer struct{ p unsafe.Pointer }

// NewReducer returns a reducer of trained parameters. A bucket is sent when it
// has bucketBytes or more.
func (g *Group) NewReducer(params []torch.Tensor, bucketBytes int64) (*Reducer, error) {
	r := &Reducer{}
	return r, withAll("Reducer", params, func(p *unsafe.Pointer, n C.int64_t) *C.char {
		return C.hcunet_reducer_open(g.p, p, n, C.int64_t(bucketBytes), &r.p)
	})
}

// Prepare says that the next backward pass completes the gradients.
func (r *Reducer) Prepare() error { return check("Reducer.prepare", C.hcunet_reducer_prepare(r.p)) }

// Finish waits until every gradient is the sum over the ranks.
func (r *Reducer) Finish() error { return check("Reducer.finish", C.hcunet_reducer_finish(r.p)) }

// Close frees the reducer.
func (r *Reducer) Close() {
	C.hcunet_reducer_close(r.p)
	r.p = nil
}

// withAll calls f on the handles of tensors and keeps them alive until it returns.
func withAll(op string, tensors []torch.Tensor, f func(p *unsafe.Pointer, n C.int64_t) *C.char) error {
	handles := make([]unsafe.Pointer, len(tensors))
	for i, t := range tensors {
		p, err := handle(t)
		if err != nil {
			return &Error{op, err.Error()}
		}
		handles[i] = p
	}
	err := check(op, f(unsafe.SliceData(handles), C.int64_t(len(handles))))
	runtime.KeepAlive(tensors)
	return err
}

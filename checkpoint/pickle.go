package checkpoint

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// Limits for pickles. PyTorch writes about forty operations per tensor, so real
// files stay far below them.
const (
	maxPickleOps   = 2 << 20
	maxPickleBytes = 64 << 20
	maxPickleLine  = 1024 // bytes in each of the two lines of GLOBAL
)

// A value is a value of the pickle machine: nil, bool, int64, float64, string,
// []byte, or one of the pointer types below. A pickle cannot produce anything
// else.
type value any

type (
	tuple struct{ items []value }
	list  struct{ items []value }

	// dict keeps the order of insertion, as in Python. It keeps only string and
	// integer keys, because state dicts have no others.
	dict struct {
		keys  []value
		items []value
		index map[value]int
	}

	// global is the name of a class or function. It is never looked up.
	global struct{ module, name string }

	// variable is a tensor of PyTorch 0.1, which is made without arguments and
	// then gets its content as a state; see tensorOf.
	variable struct {
		by    string
		state *tuple
	}

	// opaque is the result of any other call in a pickle. The call is not made,
	// and the result has no content.
	opaque struct{ by string }
)

func (d *dict) set(k, v value) {
	switch k.(type) {
	case string, int64:
	default:
		return
	}
	if i, ok := d.index[k]; ok {
		d.items[i] = v
		return
	}
	if d.index == nil {
		d.index = map[value]int{}
	}
	d.index[k] = len(d.keys)
	d.keys = append(d.keys, k)
	d.items = append(d.items, v)
}

func (d *dict) get(k value) (value, bool) {
	i, ok := d.index[k]
	if !ok {
		return nil, false
	}
	return d.items[i], true
}

// A pickleReader reads the bytes [at, limit) of a file in sequence.
type pickleReader struct {
	r         *bufio.Reader
	src       io.ReaderAt
	start, at int64
	limit     int64
}

func newPickleReader(r io.ReaderAt, start, limit int64) *pickleReader {
	return &pickleReader{
		r:   bufio.NewReader(io.NewSectionReader(r, start, limit-start)),
		src: r, start: start, at: start, limit: limit,
	}
}

// skip skips n bytes. The caller has checked that they exist.
func (p *pickleReader) skip(n int64) {
	p.at += n
	p.r.Reset(io.NewSectionReader(p.src, p.at, p.limit-p.at))
}

func (p *pickleReader) fail(format string, args ...any) error {
	return pthError(p.at, format, args...)
}

func (p *pickleReader) byte() (byte, error) {
	if p.at >= p.limit {
		return 0, p.fail("the pickle ends early")
	}
	b, err := p.r.ReadByte()
	if err != nil {
		return 0, p.early(err)
	}
	p.at++
	return b, nil
}

// bytes reads n bytes. It compares n with the bytes that are left before it
// allocates memory.
func (p *pickleReader) bytes(n uint64) ([]byte, error) {
	if n > uint64(p.limit-p.at) {
		return nil, p.fail("the pickle says %d bytes, %d are left", n, p.limit-p.at)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(p.r, b); err != nil {
		return nil, p.early(err)
	}
	p.at += int64(n)
	return b, nil
}

// uint reads n bytes, at most 8, little endian.
func (p *pickleReader) uint(n int) (uint64, error) {
	var v uint64
	for i := range n {
		b, err := p.byte()
		if err != nil {
			return 0, err
		}
		v |= uint64(b) << (8 * i)
	}
	return v, nil
}

// line reads up to the next newline and returns the line without it.
func (p *pickleReader) line() (string, error) {
	var b []byte
	for {
		c, err := p.byte()
		if err != nil {
			return "", err
		}
		if c == '\n' {
			return string(b), nil
		}
		if len(b) == maxPickleLine {
			return "", p.fail("a line of more than %d bytes", maxPickleLine)
		}
		b = append(b, c)
	}
}

func (p *pickleReader) early(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return p.fail("the pickle ends early")
	}
	return err
}

// A pickleMachine runs the opcodes that torch.save writes with protocols 2 to
// 5. Every opcode takes time and memory in proportion to the bytes that it
// reads. Two opcodes copy more (a call with a list, the shape of a tensor);
// they have limits of their own.
//
// Source: Python's Lib/pickletools.py, the table of opcodes.
type pickleMachine struct {
	in    *pickleReader
	ops   int // operations left, for all pickles of a file
	work  int // elements that calls may still copy
	stack []value
	marks []int // heights of the stack
	memo  map[uint64]value

	persistent func(id value) (value, error)
	call       func(f *global, args []value) (value, error)
}

// run reads one pickle up to its STOP.
func (m *pickleMachine) run() (value, error) {
	m.stack, m.marks, m.memo = nil, nil, map[uint64]value{}
	for {
		op, err := m.in.byte()
		if err != nil {
			return nil, err
		}
		if m.ops--; m.ops < 0 {
			return nil, &UnsupportedError{"pth", fmt.Sprintf("the pickle has more than %d operations", maxPickleOps)}
		}
		if op == '.' { // STOP
			return m.pop()
		}
		if err := m.step(op); err != nil {
			return nil, err
		}
	}
}

func (m *pickleMachine) push(v value) { m.stack = append(m.stack, v) }

// floor returns the height of the stack at the newest mark. Values below it
// must not be popped.
func (m *pickleMachine) floor() int {
	if n := len(m.marks); n > 0 {
		return m.marks[n-1]
	}
	return 0
}

func (m *pickleMachine) pop() (value, error) {
	n := len(m.stack)
	if n <= m.floor() {
		return nil, m.in.fail("the stack is empty")
	}
	v := m.stack[n-1]
	m.stack[n-1] = nil
	m.stack = m.stack[:n-1]
	return v, nil
}

func (m *pickleMachine) top() (value, error) {
	if len(m.stack) <= m.floor() {
		return nil, m.in.fail("the stack is empty")
	}
	return m.stack[len(m.stack)-1], nil
}

// popN pops the n topmost values and returns them in the order in which they
// were pushed.
func (m *pickleMachine) popN(n int) ([]value, error) {
	if len(m.stack)-n < m.floor() {
		return nil, m.in.fail("the stack has fewer than %d values", n)
	}
	at := len(m.stack) - n
	out := append([]value(nil), m.stack[at:]...)
	clear(m.stack[at:])
	m.stack = m.stack[:at]
	return out, nil
}

// popMark pops the values above the newest mark, and the mark.
func (m *pickleMachine) popMark() ([]value, error) {
	if len(m.marks) == 0 {
		return nil, m.in.fail("there is no mark")
	}
	out, err := m.popN(len(m.stack) - m.floor())
	m.marks = m.marks[:len(m.marks)-1]
	return out, err
}

func (m *pickleMachine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		v, err := m.in.byte()
		if err == nil && v > 5 {
			err = &UnsupportedError{"pth", fmt.Sprintf("pickle protocol %d", v)}
		}
		return err
	case 0x95: // FRAME: only a hint for buffering
		_, err := m.in.uint(8)
		return err
	case '(': // MARK
		m.marks = append(m.marks, len(m.stack))
		return nil
	case '0': // POP
		if n := len(m.marks); n > 0 && m.marks[n-1] == len(m.stack) {
			m.marks = m.marks[:n-1]
			return nil
		}
		_, err := m.pop()
		return err
	case '1': // POP_MARK
		_, err := m.popMark()
		return err
	case '2': // DUP
		v, err := m.top()
		if err == nil {
			m.push(v)
		}
		return err

	case 'N':
		m.push(nil)
		return nil
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		m.push(op == 0x88)
		return nil
	case 'K', 'M': // BININT1, BININT2
		v, err := m.in.uint(1 + int(op-'K')/2)
		m.push(int64(v))
		return err
	case 'J': // BININT
		v, err := m.in.uint(4)
		m.push(int64(int32(v)))
		return err
	case 0x8a, 0x8b: // LONG1, LONG4
		return m.long(op == 0x8a)
	case 'G': // BINFLOAT, big endian
		b, err := m.in.bytes(8)
		if err == nil {
			m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
		return err
	case 'U', 0x8c: // SHORT_BINSTRING (Python 2's str), SHORT_BINUNICODE
		return m.text(1)
	case 'T', 'X': // BINSTRING, BINUNICODE
		return m.text(4)
	case 0x8d: // BINUNICODE8
		return m.text(8)
	case 'C': // SHORT_BINBYTES
		return m.raw(1)
	case 'B': // BINBYTES
		return m.raw(4)
	case 0x8e, 0x96: // BINBYTES8, BYTEARRAY8
		return m.raw(8)

	case ')': // EMPTY_TUPLE
		m.push(&tuple{})
		return nil
	case 't': // TUPLE
		items, err := m.popMark()
		m.push(&tuple{items})
		return err
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		items, err := m.popN(int(op) - 0x84)
		m.push(&tuple{items})
		return err
	case ']': // EMPTY_LIST
		m.push(&list{})
		return nil
	case 'l': // LIST
		items, err := m.popMark()
		m.push(&list{items})
		return err
	case 'a', 'e': // APPEND, APPENDS
		items, err := m.popFor(op == 'e', 1)
		if err != nil {
			return err
		}
		to, err := m.top()
		if l, ok := to.(*list); ok {
			l.items = append(l.items, items...)
		}
		return err
	case '}': // EMPTY_DICT
		m.push(&dict{})
		return nil
	case 'd': // DICT
		items, err := m.popMark()
		if err != nil {
			return err
		}
		d := &dict{}
		m.push(d)
		return m.fill(d, items)
	case 's', 'u': // SETITEM, SETITEMS
		items, err := m.popFor(op == 'u', 2)
		if err != nil {
			return err
		}
		to, err := m.top()
		if err != nil {
			return err
		}
		return m.fill(to, items)
	case 0x8f: // EMPTY_SET
		m.push(&opaque{"set"})
		return nil
	case 0x90: // ADDITEMS
		if _, err := m.popMark(); err != nil {
			return err
		}
		_, err := m.top()
		return err
	case 0x91: // FROZENSET
		_, err := m.popMark()
		m.push(&opaque{"frozenset"})
		return err

	case 'q': // BINPUT
		return m.put(m.in.uint(1))
	case 'r': // LONG_BINPUT
		return m.put(m.in.uint(4))
	case 0x94: // MEMOIZE
		return m.put(uint64(len(m.memo)), nil)
	case 'h': // BINGET
		return m.fetch(m.in.uint(1))
	case 'j': // LONG_BINGET
		return m.fetch(m.in.uint(4))

	case 'c': // GLOBAL
		module, err := m.in.line()
		if err != nil {
			return err
		}
		name, err := m.in.line()
		m.push(&global{module, name})
		return err
	case 0x93: // STACK_GLOBAL
		v, err := m.popN(2)
		if err != nil {
			return err
		}
		module, ok1 := v[0].(string)
		name, ok2 := v[1].(string)
		if !ok1 || !ok2 {
			return m.in.fail("a class whose name is not a string")
		}
		m.push(&global{module, name})
		return nil
	case 'R', 0x81: // REDUCE, NEWOBJ: a callable and a tuple
		return m.reduce(2)
	case 0x92: // NEWOBJ_EX: also with a dict of keywords
		return m.reduce(3)
	case 'b': // BUILD: the state of an object; only a variable uses it
		state, err := m.pop()
		if err != nil {
			return err
		}
		to, err := m.top()
		if v, ok := to.(*variable); ok {
			v.state, _ = state.(*tuple)
		}
		return err
	case 'Q': // BINPERSID
		id, err := m.pop()
		if err != nil {
			return err
		}
		v, err := m.persistent(id)
		m.push(v)
		return err
	}
	return &UnsupportedError{"pth", fmt.Sprintf("pickle opcode 0x%02x at byte %d, which torch.save does not write with protocols 2 to 5", op, m.in.at-1)}
}

// popFor pops the values of APPENDS or SETITEMS, or the n values of APPEND or
// SETITEM.
func (m *pickleMachine) popFor(marked bool, n int) ([]value, error) {
	if marked {
		return m.popMark()
	}
	return m.popN(n)
}

// fill sets pairs of key and value in a dict. For any other object it ignores
// them.
func (m *pickleMachine) fill(to value, items []value) error {
	if len(items)%2 != 0 {
		return m.in.fail("a key without a value")
	}
	if d, ok := to.(*dict); ok {
		for i := 0; i < len(items); i += 2 {
			d.set(items[i], items[i+1])
		}
	}
	return nil
}

// long reads a two's complement integer. An integer that does not fit in 64
// bits, such as the magic number, becomes a string of its bytes.
func (m *pickleMachine) long(short bool) error {
	width := 4
	if short {
		width = 1
	}
	n, err := m.in.uint(width)
	if err != nil {
		return err
	}
	b, err := m.in.bytes(n)
	if err != nil {
		return err
	}
	if len(b) > 8 {
		m.push(b)
		return nil
	}
	var v int64
	for i, c := range b {
		v |= int64(c) << (8 * i)
	}
	if n := len(b); n > 0 && n < 8 && b[n-1] >= 0x80 {
		v -= 1 << (8 * n)
	}
	m.push(v)
	return nil
}

func (m *pickleMachine) text(width int) error {
	n, err := m.in.uint(width)
	if err != nil {
		return err
	}
	b, err := m.in.bytes(n)
	m.push(string(b))
	return err
}

func (m *pickleMachine) raw(width int) error {
	n, err := m.in.uint(width)
	if err != nil {
		return err
	}
	b, err := m.in.bytes(n)
	m.push(b)
	return err
}

func (m *pickleMachine) put(i uint64, err error) error {
	if err != nil {
		return err
	}
	v, err := m.top()
	m.memo[i] = v
	return err
}

func (m *pickleMachine) fetch(i uint64, err error) error {
	if err != nil {
		return err
	}
	v, ok := m.memo[i]
	if !ok {
		return m.in.fail("the memo has no entry %d", i)
	}
	m.push(v)
	return nil
}

// reduce pops a callable, its arguments and, for n = 3, keywords, which no
// supported callable uses, and pushes the result.
func (m *pickleMachine) reduce(n int) error {
	v, err := m.popN(n)
	if err != nil {
		return err
	}
	args, ok := v[1].(*tuple)
	if !ok {
		return m.in.fail("the arguments of a call are not a tuple")
	}
	f, ok := v[0].(*global)
	if !ok {
		m.push(&opaque{"a computed callable"})
		return nil
	}
	out, err := m.call(f, args.items)
	m.push(out)
	return err
}

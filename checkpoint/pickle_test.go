package checkpoint

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The pickles are pickle.dumps(v, protocol) of Python 3.11 without PROTO, FRAME
// and memo.
func TestPickleValues(t *testing.T) {
	for _, c := range []struct {
		name, pickle string
		want         value
	}{
		{"none", "N.", nil},
		{"true", "\x88.", true},
		{"false", "\x89.", false},
		{"255", "K\xff.", int64(255)},
		{"65535", "M\xff\xff.", int64(65535)},
		{"-5", "J\xfb\xff\xff\xff.", int64(-5)},
		{"2^31-1", "J\xff\xff\xff\x7f.", int64(1<<31 - 1)},
		{"2^31", "\x8a\x05\x00\x00\x00\x80\x00.", int64(1 << 31)},
		{"-2^31-1", "\x8a\x05\xff\xff\xff\x7f\xff.", int64(-1<<31 - 1)},
		{"-2^63", "\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.", int64(-1 << 63)},
		{"0 as a long", "\x8a\x00.", int64(0)},
		{"2^70", "\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x40.", []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x40")},
		{"long of four bytes of length", "\x8b\x01\x00\x00\x00\x80.", int64(-128)},
		{"-0.1", "G\xbf\xb9\x99\x99\x99\x99\x99\x9a.", -0.1},
		{"text", "X\x03\x00\x00\x00\xc3\xa4b.", "äb"},
		{"short text", "\x8c\x02ab.", "ab"},
		{"long text", "\x8d\x02\x00\x00\x00\x00\x00\x00\x00ab.", "ab"},
		{"bytes", "C\x01a.", []byte("a")},
		{"longer bytes", "B\x01\x00\x00\x00a.", []byte("a")},
		{"tuple", "K\x01K\x02K\x03\x87.", &tuple{[]value{int64(1), int64(2), int64(3)}}},
		{"tuple of a mark", "(K\x01K\x02K\x03K\x04t.", &tuple{[]value{int64(1), int64(2), int64(3), int64(4)}}},
		{"list", "](K\x01K\x02e.", &list{[]value{int64(1), int64(2)}}},
		{"list of a mark", "(K\x01K\x02l.", &list{[]value{int64(1), int64(2)}}},
		{"one appended", "]K\x01a.", &list{[]value{int64(1)}}},
		{"set", "\x8f(K\x01\x90.", &opaque{"set"}},
		{"frozenset", "(K\x01\x91.", &opaque{"frozenset"}},
		{"dup, pop", "K\x012\x860.", "the stack is empty"},
		{"dup", "K\x012\x86.", &tuple{[]value{int64(1), int64(1)}}},
		{"pop of a mark's values", "K\x01(K\x02K\x031.", int64(1)},
		{"class of two strings", "X\x01\x00\x00\x00aX\x01\x00\x00\x00b\x93.", &global{"a", "b"}},
		{"class", "ca.b\nc\n.", &global{"a.b", "c"}},
		{"state", "NK\x01b.", nil},
		{"memo of protocol 4", "K\x01\x94K\x02\x94h\x00.", int64(1)},
		{"memo of four bytes", "K\x01r\x00\x00\x00\x01K\x02j\x00\x00\x00\x01.", int64(1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &torchReader{}
			m := pickleMachine{in: newPickleReader(strings.NewReader(c.pickle), 0, int64(len(c.pickle))), ops: 100, call: r.call}
			got, err := m.run()
			if text, ok := c.want.(string); ok && err != nil {
				require.ErrorContains(t, err, text)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

// A dict keeps the order of first insertion and the last value, as Python's.
func TestPickleDict(t *testing.T) {
	const text = "}(" + "\x8c\x01bK\x01" + "\x8c\x01aK\x02" + "K\x07K\x03" + "\x8c\x01bK\x04" + "NK\x05" + "u."
	m := pickleMachine{in: newPickleReader(strings.NewReader(text), 0, int64(len(text))), ops: 100}
	got, err := m.run()
	require.NoError(t, err)
	d := got.(*dict)
	require.Equal(t, []value{"b", "a", int64(7)}, d.keys)
	require.Equal(t, []value{int64(4), int64(2), int64(3)}, d.items)
	v, ok := d.get("a")
	require.True(t, ok)
	require.Equal(t, value(int64(2)), v)
	_, ok = d.get("c")
	require.False(t, ok)
}

// Operations are counted, so that no pickle takes long or makes many values.
func TestPickleOperations(t *testing.T) {
	text := proto + strings.Repeat("]", maxPickleOps) + "."
	b := zipped(t, "x/data.pkl", text)
	got := allocated(func() {
		_, err := read(b)
		var unsupported *UnsupportedError
		require.ErrorAs(t, err, &unsupported)
		require.ErrorContains(t, err, "operations")
	})
	require.Less(t, got, int64(300<<20), "two million lists and the stack they lie on")
}

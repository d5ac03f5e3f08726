package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hcunet/hcunet/internal/folderlock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// weights is the file of the servers below. Its two halves differ.
var weights = func() []byte {
	var b []byte
	for i := range 100_000 {
		b = strconv.AppendInt(b, int64(i), 10)
	}
	return b
}()

// weightsName is a file name with the right hash, and digits of it.
func weightsName(digits int) string {
	h := sha256.Sum256(weights)
	return "resnet34-" + hex.EncodeToString(h[:])[:digits] + ".pth"
}

// A hub is a server that records the requests.
type hub struct {
	*httptest.Server
	mu     sync.Mutex
	ranges []string
}

func (h *hub) asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ranges
}

// serve starts a server whose n-th request, counted from 0, answer handles.
func serve(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *hub {
	h := &hub{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		n := len(h.ranges)
		h.ranges = append(h.ranges, r.Header.Get("Range"))
		h.mu.Unlock()
		answer(n, w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

// good answers as PyTorch's server does, with ranges.
func good(_ int, w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(weights))
}

// options go to a temporary folder and do not wait between attempts.
func options(t *testing.T, h *hub) *FetchOptions {
	return &FetchOptions{Dir: t.TempDir(), BaseURL: h.URL, Wait: func(int) time.Duration { return 0 }}
}

// fetched fails unless Fetch brings the weights and leaves nothing else.
func fetched(t *testing.T, o *FetchOptions) {
	t.Helper()
	path, err := Fetch(t.Context(), weightsName(8), o)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(o.Dir, weightsName(8)), path)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(weights, got))
	require.Len(t, left(t, o), 1)
}

// left returns the files in the cache, without the lock.
func left(t *testing.T, o *FetchOptions) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	return slices.DeleteFunc(entries, func(e os.DirEntry) bool { return e.Name() == folderlock.File })
}

func part(o *FetchOptions) string { return filepath.Join(o.Dir, weightsName(8)+".part") }

func TestFetch(t *testing.T) {
	h := serve(t, good)
	o := options(t, h)
	var steps []int64
	o.Progress = func(done, total int64) {
		assert.Equal(t, int64(len(weights)), total)
		steps = append(steps, done)
	}
	fetched(t, o)
	require.Equal(t, int64(len(weights)), steps[len(steps)-1])
	require.IsIncreasing(t, steps)
	fetched(t, o)
	require.Equal(t, []string{""}, h.asked(), "the second time it comes from the cache")

	// What is in the cache is checked again.
	path := filepath.Join(o.Dir, weightsName(8))
	require.NoError(t, os.Truncate(path, 10))
	o.Progress = nil
	fetched(t, o)
	require.Len(t, h.asked(), 2)

	full := weightsName(64)
	_, err := Fetch(t.Context(), full, o)
	require.NoError(t, err)
}

func TestFetchContinues(t *testing.T) {
	h := serve(t, good)
	o := options(t, h)
	require.NoError(t, os.WriteFile(part(o), weights[:12345], 0o666))
	first := int64(0)
	o.Progress = func(done, total int64) {
		if first == 0 {
			first = done
		}
		assert.Equal(t, int64(len(weights)), total)
	}
	fetched(t, o)
	require.Equal(t, []string{"bytes=12345-"}, h.asked())
	require.Greater(t, first, int64(12345), "progress counts what was there")
}

func TestFetchContinuesFromAllThereIs(t *testing.T) {
	h := serve(t, good)
	o := options(t, h)
	require.NoError(t, os.WriteFile(part(o), weights, 0o666))
	fetched(t, o)
	require.Equal(t, []string{fmt.Sprintf("bytes=%d-", len(weights))}, h.asked())
}

func TestFetchFromAServerWithoutRanges(t *testing.T) {
	h := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.Write(weights) })
	o := options(t, h)
	require.NoError(t, os.WriteFile(part(o), weights[:12345], 0o666))
	fetched(t, o)
	require.Equal(t, []string{"bytes=12345-"}, h.asked())
}

// The hash shows that a partial file belongs to another file, and the download
// begins again.
func TestFetchReplacesAWrongPart(t *testing.T) {
	for name, content := range map[string][]byte{
		"shorter": bytes.Repeat([]byte("x"), 999),
		"longer":  bytes.Repeat([]byte("x"), len(weights)+1),
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, good)
			o := options(t, h)
			require.NoError(t, os.WriteFile(part(o), content, 0o666))
			fetched(t, o)
			require.Len(t, h.asked(), 2)
		})
	}
}

// cutOff sends less than it announced, and the connection breaks.
func cutOff(w http.ResponseWriter, from, to int) {
	w.Header().Set("Content-Length", strconv.Itoa(len(weights)-from))
	if from > 0 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(weights)-1, len(weights)))
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(weights[from:to])
}

func TestFetchTakesABrokenConnectionUp(t *testing.T) {
	// More breaks than attempts without a byte are allowed: each brings some.
	h := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n < 8 {
			cutOff(w, 1000*n, 1000*(n+1))
		} else {
			good(n, w, r)
		}
	})
	fetched(t, options(t, h))
	require.Equal(t, []string{"", "bytes=1000-", "bytes=2000-"}, h.asked()[:3])
	require.Len(t, h.asked(), 9)
}

// A server may send less than was asked for, and say so.
func TestFetchInPieces(t *testing.T) {
	h := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		var from int
		_, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		assert.NoError(t, err)
		to := min(from+100_000, len(weights))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(weights)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(weights[from:to])
	})
	o := options(t, h)
	require.NoError(t, os.WriteFile(part(o), weights[:10], 0o666))
	fetched(t, o)
	require.Len(t, h.asked(), (len(weights)-10+99_999)/100_000)
}

func TestFetchGivesUpAndContinuesLater(t *testing.T) {
	broken := true
	h := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch {
		case n == 0:
			cutOff(w, 0, 5000)
		case broken:
			w.WriteHeader(http.StatusBadGateway)
		default:
			good(n, w, r)
		}
	})
	o := options(t, h)
	var waits []int
	o.Wait = func(attempt int) time.Duration { waits = append(waits, attempt); return 0 }
	_, err := Fetch(t.Context(), weightsName(8), o)
	require.ErrorContains(t, err, "502 Bad Gateway")
	require.ErrorContains(t, err, "call again to continue")
	require.Equal(t, []int{1, 2, 3}, waits[len(waits)-3:])
	st, err := os.Stat(part(o))
	require.NoError(t, err)
	require.Equal(t, int64(5000), st.Size())
	broken = false
	fetched(t, o)
	require.Equal(t, "bytes=5000-", h.asked()[len(h.asked())-1])
}

func TestFetchWrongHash(t *testing.T) {
	h := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.Write([]byte("other weights")) })
	o := options(t, h)
	_, err := Fetch(t.Context(), "resnet34-333f7ec4.pth", o)
	var wrong *HashError
	require.ErrorAs(t, err, &wrong)
	// printf 'other weights' | sha256sum
	require.Equal(t, HashError{File: "resnet34-333f7ec4.pth", Want: "333f7ec4", Got: "53959fa1", Kind: `text that begins with "other weights"`}, *wrong)
	require.Empty(t, left(t, o), "neither the file nor its part stays")
	require.Len(t, h.asked(), 1)
}

func TestFetchNotThere(t *testing.T) {
	h := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	_, err := Fetch(t.Context(), "resnet34", options(t, h))
	require.ErrorContains(t, err, "404 Not Found")
	require.ErrorContains(t, err, h.URL+"/resnet34-333f7ec4.pth")
	require.Len(t, h.asked(), 1, "that it is not there does not change by asking again")
}

func TestFetchOtherRangeThanAsked(t *testing.T) {
	for _, header := range []string{"bytes 5-9/10", "", "bytes 100", "bytes x-9/10", "pages 100-199/200"} {
		h := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", header)
			w.WriteHeader(http.StatusPartialContent)
			w.Write(weights[5:])
		})
		o := options(t, h)
		require.NoError(t, os.WriteFile(part(o), weights[:100], 0o666))
		_, err := Fetch(t.Context(), weightsName(8), o)
		require.ErrorContains(t, err, "asked for bytes from 100")
	}
}

// The kernel's own full disk: every write to /dev/full fails with ENOSPC.
func TestFetchNoSpace(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	h := serve(t, good)
	o := options(t, h)
	require.NoError(t, os.Symlink("/dev/full", part(o)))
	_, err := Fetch(t.Context(), weightsName(8), o)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "free some space")
	require.Len(t, h.asked(), 1)
	require.NoError(t, os.Remove(part(o)))
	fetched(t, o)
}

func TestFetchIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		cutOff(w, 0, 100_000)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	o := options(t, h)
	o.Progress = func(int64, int64) { cancel() }
	_, err := Fetch(ctx, weightsName(8), o)
	require.ErrorIs(t, err, context.Canceled)
	st, err := os.Stat(part(o))
	require.NoError(t, err)
	require.NotZero(t, st.Size(), "what came stays")
}

func TestFetchNobodyAnswers(t *testing.T) {
	h := serve(t, good)
	o := options(t, h)
	h.Close()
	_, err := Fetch(t.Context(), weightsName(8), o)
	require.ErrorContains(t, err, "given up after 4 attempts")
}

// A call that waits for another download can be cancelled.
func TestFetchWaits(t *testing.T) {
	o := options(t, serve(t, good))
	lock, err := folderlock.Exclusive(o.Dir)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = Fetch(ctx, weightsName(8), o)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "waiting for another download")
	require.NoError(t, lock.Unlock())
	fetched(t, o)
}

// Two at once: one downloads, the other waits and finds it done.
func TestFetchTwice(t *testing.T) {
	h := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		good(n, w, r)
	})
	o := options(t, h)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { _, errs[i] = Fetch(t.Context(), weightsName(8), o) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	fetched(t, o)
	require.Len(t, h.asked(), 1)
}

func TestFindPublished(t *testing.T) {
	for name, want := range map[string]Published{
		"resnet34":                           {Name: "resnet34-333f7ec4", Architecture: "resnet34", File: "resnet34-333f7ec4.pth"},
		"resnet18":                           {Name: "resnet18-5c106cde", Architecture: "resnet18", File: "resnet18-5c106cde.pth"},
		"resnet34-333f7ec4":                  {Name: "resnet34-333f7ec4", Architecture: "resnet34", File: "resnet34-333f7ec4.pth"},
		"resnet34-b627a593":                  {Name: "resnet34-b627a593", Architecture: "resnet34", File: "resnet34-b627a593.pth"},
		"resnet34-b627a593.pth":              {Name: "resnet34-b627a593", Architecture: "resnet34", File: "resnet34-b627a593.pth"},
		"resnet18-f37072fd":                  {Name: "resnet18-f37072fd", Architecture: "resnet18", File: "resnet18-f37072fd.pth"},
		"x.y_Z-0123456789abcdef.safetensors": {Name: "x.y_Z-0123456789abcdef", Architecture: "x.y_Z", File: "x.y_Z-0123456789abcdef.safetensors"},
	} {
		got, ok := FindPublished(name)
		require.True(t, ok, name)
		require.True(t, strings.HasPrefix(want.Name, want.Architecture+"-"+got.digits), name)
		got.digits = ""
		require.Equal(t, want, got, name)
	}
	for _, name := range []string{
		"resnet35", "", "resnet34.pth", "resnet34-B627A593.pth", "resnet34-b627a59.pth", "../resnet34-b627a593.pth", "a/resnet34-b627a593.pth",
		`a\resnet34-b627a593.pth`, "resnet34-b627a593.pth\n", "-b627a593.pth", "resnet34-b627a593.exe", "resnet34-b627a593.", "resnet34-b627a593.pth.pth",
	} {
		_, ok := FindPublished(name)
		require.False(t, ok, "%q", name)
		_, err := Fetch(t.Context(), name, &FetchOptions{Dir: t.TempDir()})
		require.ErrorContains(t, err, "resnet34, resnet34-333f7ec4, resnet34-b627a593, resnet50")
	}
	require.Empty(t, Generations("vgg"))
	for architecture := range generations {
		for _, file := range Generations(architecture) {
			p, ok := FindPublished(file)
			require.True(t, ok, file)
			require.Equal(t, architecture, p.Architecture)
		}
	}
}

// If the server sends a page in place of the file, the error says so.
func TestFetchPage(t *testing.T) {
	h := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("<!DOCTYPE html><html><body>Please log in</body></html>"))
	})
	o := options(t, h)
	_, err := Fetch(t.Context(), weightsName(8), o)
	var wrong *HashError
	require.ErrorAs(t, err, &wrong)
	require.ErrorContains(t, err, "it is an HTML page")
	require.NoFileExists(t, part(o))
}

func TestFetchCacheFolder(t *testing.T) {
	h := serve(t, good)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	path, err := Fetch(t.Context(), weightsName(8), &FetchOptions{BaseURL: h.URL + "/"})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(cache, "hcunet", weightsName(8)), path)
}

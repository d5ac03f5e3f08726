package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hcunet/hcunet/internal/folderlock"
)

// torchHub is the address where PyTorch publishes torchvision's weights.
const torchHub = "https://download.pytorch.org/models/"

const (
	maxAttempts = 4                // in a row without a byte, before Fetch gives up
	maxFetch    = 16 << 30         // bytes; a server that sends more is stopped
	stallLimit  = 60 * time.Second // the longest time without a byte
)

// FetchOptions are optional settings of Fetch.
type FetchOptions struct {
	Dir      string                              // "" means the folder hcunet in os.UserCacheDir
	BaseURL  string                              // address of a mirror; "" means PyTorch's own
	Client   *http.Client                        // nil means http.DefaultClient
	Progress func(done, total int64)             // called when bytes arrive; total is -1 if the server does not say it
	Wait     func(attempt int) (d time.Duration) // time before the next attempt; nil means 1, 2, 4, ... seconds
}

// A HashError says that the SHA-256 of a downloaded file does not match its
// name.
type HashError struct {
	File      string
	Want, Got string // as many hexadecimal digits of the SHA-256 as the name has
	Kind      string // kind of the downloaded file, "an HTML page ..."; "" if it is not known
}

func (e *HashError) Error() string {
	what := ""
	if e.Kind != "" {
		what = "it is " + e.Kind + "; "
	}
	return fmt.Sprintf("checkpoint: fetch: %s: its SHA-256 begins with %s, but by its name it must begin with %s; %sthe download was removed; try again or use another mirror", e.File, e.Got, e.Want, what)
}

// Fetch returns the path of published weights in the cache. It downloads them first if
// they are not there. See FindPublished for the names. A file is put into the cache
// only if its SHA-256 begins with the digits in its name, and a file in the cache is
// checked again. An interrupted download stays in the same folder as "<file>.part", and
// the next call continues it if the server can. Fetch connects again if a connection
// breaks. (The well-known github.com/cavaliergopher/grab also continues a part, but
// does not try again and has no limit for a server that stops sending.)
func Fetch(ctx context.Context, name string, o *FetchOptions) (path string, err error) {
	var opt FetchOptions
	if o != nil {
		opt = *o
	}
	p, ok := FindPublished(name)
	if !ok {
		return "", fmt.Errorf("checkpoint: fetch: %q is neither one of %s nor a file name that ends in its hash", name, strings.Join(publishedNames(), ", "))
	}
	if opt.Dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("checkpoint: fetch: there is no cache folder; set FetchOptions.Dir: %w", err)
		}
		opt.Dir = filepath.Join(cache, "hcunet")
	}
	if err := os.MkdirAll(opt.Dir, 0o777); err != nil {
		return "", err
	}
	base := opt.BaseURL
	if base == "" {
		base = torchHub
	}
	d := &download{
		options: opt,
		url:     strings.TrimSuffix(base, "/") + "/" + p.File,
		path:    filepath.Join(opt.Dir, p.File),
		digits:  p.digits,
	}
	if d.client = opt.Client; d.client == nil {
		d.client = http.DefaultClient
	}
	if d.verify(d.path) == nil {
		return d.path, nil
	}
	if err := d.run(ctx); err != nil {
		return "", err
	}
	return d.path, nil
}

// A download downloads one file.
type download struct {
	options FetchOptions
	client  *http.Client
	url     string
	path    string
	digits  string // first digits of the hash, lower case
}

// run downloads to the partial file, checks it and moves it into place. It holds
// the lock of the folder, so that no other process downloads to it.
func (d *download) run(ctx context.Context) error {
	lock, err := folderlock.Wait(ctx, d.options.Dir)
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("checkpoint: fetch: waiting for another download to %s: %w", d.options.Dir, err)
	}
	// On a file system without locks this is another error, which is ignored: the
	// hash is checked anyway.
	defer lock.Unlock()
	if d.verify(d.path) == nil { // another process has downloaded it meanwhile
		return nil
	}
	part, err := os.OpenFile(d.path+".part", os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer part.Close()
	resumed, err := d.fill(ctx, part)
	if err == nil {
		err = d.verify(part.Name())
	}
	var wrong *HashError
	if errors.As(err, &wrong) && resumed {
		// The part was of another file: download again from the start.
		if err = part.Truncate(0); err == nil {
			if _, err = d.fill(ctx, part); err == nil {
				err = d.verify(part.Name())
			}
		}
	}
	if err == nil {
		err = part.Sync()
	}
	part.Close() // Windows needs this before the file is moved or removed
	if errors.As(err, &wrong) {
		os.Remove(part.Name())
	}
	if err != nil {
		return err
	}
	return os.Rename(part.Name(), d.path)
}

// fill downloads part to its full length, with as many connections as it needs.
// resumed says that part had bytes from an earlier call.
func (d *download) fill(ctx context.Context, part *os.File) (resumed bool, err error) {
	st, err := part.Stat()
	if err != nil {
		return false, err
	}
	resumed = st.Size() > 0
	for attempt := 0; ; {
		before, err := part.Seek(0, io.SeekEnd)
		if err != nil {
			return resumed, err
		}
		err = d.connect(ctx, part, before)
		var broken *brokenError
		if !errors.As(err, &broken) {
			return resumed, err
		}
		if after, err := part.Seek(0, io.SeekEnd); err == nil && after > before {
			attempt = 0
		}
		if attempt++; attempt >= maxAttempts {
			return resumed, fmt.Errorf("checkpoint: fetch: %s: given up after %d attempts; call again to continue: %w", d.url, maxAttempts, broken.err)
		}
		if err := d.pause(ctx, attempt); err != nil {
			return resumed, err
		}
	}
}

// A brokenError is an error after which another attempt may succeed.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

func (d *download) pause(ctx context.Context, attempt int) error {
	wait := time.Second << (attempt - 1)
	if d.options.Wait != nil {
		wait = d.options.Wait(attempt)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

// connect requests the bytes from have on and appends them to part.
func (d *download) connect(ctx context.Context, part *os.File, have int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := fmt.Errorf("no byte arrived for %v", stallLimit)
	watchdog := time.AfterFunc(stallLimit, func() { cancel(stalled) })
	defer watchdog.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return fmt.Errorf("checkpoint: fetch: %w", err)
	}
	req.Header.Set("Accept-Encoding", "identity") // otherwise lengths may be those of compressed data
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return d.interrupted(ctx, stalled, err)
	}
	defer resp.Body.Close()

	total := int64(-1)
	switch {
	case resp.StatusCode == http.StatusOK: // the whole file: the server cannot continue, or was not asked to
		have, total = 0, resp.ContentLength
	case resp.StatusCode == http.StatusPartialContent && have > 0:
		start, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || start != have {
			return fmt.Errorf("checkpoint: fetch: %s: asked for bytes from %d, the server sends %q", d.url, have, resp.Header.Get("Content-Range"))
		}
		total = size
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && have > 0:
		return nil // there are no more bytes; the hash shows whether the file is complete
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return &brokenError{fmt.Errorf("the server says %s", resp.Status)}
	default:
		return fmt.Errorf("checkpoint: fetch: %s: the server says %s; download the file in another way and give its path", d.url, resp.Status)
	}
	if st, err := part.Stat(); err != nil {
		return err
	} else if st.Size() != have {
		if err := part.Truncate(have); err != nil {
			return err
		}
	}
	if _, err := part.Seek(have, io.SeekStart); err != nil {
		return err
	}
	return d.copy(ctx, part, resp.Body, have, total, func() { watchdog.Reset(stallLimit) }, stalled)
}

// copy appends body to part, which already has have bytes, up to total.
func (d *download) copy(ctx context.Context, part io.Writer, body io.Reader, have, total int64, alive func(), stalled error) error {
	buffer := make([]byte, 256<<10)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			alive()
			if _, err := part.Write(buffer[:n]); err != nil {
				if errors.Is(err, syscall.ENOSPC) {
					return fmt.Errorf("checkpoint: fetch: the disk of %s is full; free some space and call again, %d bytes are kept: %w", d.path, have, err)
				}
				return err
			}
			have += int64(n)
			if d.options.Progress != nil {
				d.options.Progress(have, total)
			}
			if have > maxFetch {
				return fmt.Errorf("checkpoint: fetch: %s: more than %d bytes, which no weights have", d.url, int64(maxFetch))
			}
		}
		switch {
		case err == io.EOF && (total < 0 || have >= total):
			return nil
		case err == io.EOF:
			return &brokenError{io.ErrUnexpectedEOF}
		case err != nil:
			return d.interrupted(ctx, stalled, err)
		}
	}
}

// interrupted returns the caller's cancellation if there was one, else a
// brokenError.
func (d *download) interrupted(ctx context.Context, stalled, err error) error {
	switch cause := context.Cause(ctx); {
	case cause == stalled:
		return &brokenError{stalled}
	case cause != nil:
		return fmt.Errorf("checkpoint: fetch: %s: %w", d.url, cause)
	}
	return &brokenError{err}
}

// contentRange reads "bytes 100-199/200"; size is -1 for "*".
func contentRange(s string) (start, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, of, ok2 := strings.Cut(s, "/")
	first, _, ok3 := strings.Cut(span, "-")
	start, err := strconv.ParseInt(first, 10, 64)
	if !ok || !ok2 || !ok3 || err != nil {
		return 0, 0, false
	}
	if of == "*" {
		return start, -1, true
	}
	size, err = strconv.ParseInt(of, 10, 64)
	return start, size, err == nil
}

// verify returns nil if the SHA-256 of the file at path matches its name.
func (d *download) verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	got := hex.EncodeToString(h.Sum(nil))[:len(d.digits)]
	if got != d.digits {
		wrong := &HashError{File: filepath.Base(d.path), Want: d.digits, Got: got}
		var kind *KindError
		if head, err := readHead(f); err == nil && errors.As(otherKind(head), &kind) {
			wrong.Kind = kind.Kind
		}
		return wrong
	}
	return nil
}

package service

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/hcunet/hcunet/predict"
	"github.com/stretchr/testify/require"
)

// running starts Serve. It returns the service, its address, the function that ends Serve,
// and the channel of its error.
func running(t *testing.T, e *identity, opt Options) (s *Service, addr string, stop context.CancelFunc, ended chan error) {
	p, err := predict.New(artifact(), e, nil)
	require.NoError(t, err)
	opt.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err = New(p, &opt)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended = make(chan error, 1)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		ended <- s.Serve(ctx, l)
	}()
	t.Cleanup(func() { stop(); <-finished; require.NoError(t, p.Close()) })
	return s, l.Addr().String(), stop, ended
}

func isReady(t *testing.T, addr string) func() bool {
	return func() bool {
		reply, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			return false
		}
		defer reply.Body.Close()
		return reply.StatusCode == http.StatusOK
	}
}

// A service is ready from its first prediction until its context is done. Then it answers
// the film that it is working on and accepts no more connections.
func TestLife(t *testing.T) {
	e := &identity{hold: make(chan struct{})}
	s, addr, stop, ended := running(t, e, Options{Drain: 300 * time.Millisecond})
	status, _, text := get(t, "http://"+addr+"/readyz")
	require.Equal(t, 503, status)
	require.Equal(t, "the first prediction is under way\n", text)
	status, _, _ = get(t, "http://"+addr+"/healthz")
	require.Equal(t, 200, status)
	e.hold <- struct{}{}
	require.Eventually(t, isReady(t, addr), 10*time.Second, time.Millisecond)

	answered := make(chan int)
	body := bright(t, image.Rectangle{})
	go func() {
		status, _, _ := ask(t, "http://"+addr+"/predict", bytes.NewReader(body))
		answered <- status
	}()
	require.Eventually(t, func() bool { return e.busy.Load() == 1 }, 10*time.Second, time.Millisecond)
	stop()
	require.Eventually(t, func() bool { return s.state.Load() == closing }, 10*time.Second, time.Millisecond)
	status, _, text = get(t, "http://"+addr+"/readyz")
	require.Equal(t, 503, status)
	require.Equal(t, "shutting down\n", text)
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	}, 10*time.Second, time.Millisecond)
	e.hold <- struct{}{}
	require.Equal(t, 200, <-answered)
	require.NoError(t, <-ended)
}

func TestGrace(t *testing.T) {
	e := &identity{hold: make(chan struct{}, 1)}
	e.hold <- struct{}{} // for the first prediction
	_, addr, stop, ended := running(t, e, Options{Grace: 50 * time.Millisecond})
	require.Eventually(t, isReady(t, addr), 10*time.Second, time.Millisecond)
	go func() { _, _ = http.Post("http://"+addr+"/predict", "", bytes.NewReader(bright(t, spot))) }()
	require.Eventually(t, func() bool { return e.busy.Load() == 1 }, 10*time.Second, time.Millisecond)
	stop()
	require.ErrorContains(t, <-ended, "some requests had no answer after 50ms")
	close(e.hold)
}

func TestColdModel(t *testing.T) {
	_, _, _, ended := running(t, &identity{fail: errors.New("no kernel image")}, Options{})
	require.EqualError(t, <-ended, "service: the model cannot predict a black film: no kernel image")
}

// dial opens a connection, writes text to it, and returns the connection and its reader.
func dial(t *testing.T, addr, text string) (net.Conn, *bufio.Reader) {
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = io.WriteString(c, text)
	require.NoError(t, err)
	return c, bufio.NewReader(c)
}

// A client that sends its header or its body too slowly loses its connection, after an
// answer if the body is slow. Other clients are answered meanwhile.
func TestSlowClients(t *testing.T) {
	s, addr, _, _ := running(t, &identity{}, Options{Receive: 200 * time.Millisecond})
	require.Eventually(t, isReady(t, addr), 10*time.Second, time.Millisecond)
	_, header := dial(t, addr, "POST /predict HTTP/1.1\r\nHost: x\r\n")
	_, body := dial(t, addr, "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfilm")
	status, _, _ := ask(t, "http://"+addr+"/predict", bytes.NewReader(bright(t, spot)))
	require.Equal(t, 200, status)

	reply, err := http.ReadResponse(body, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestTimeout, reply.StatusCode)
	b, err := io.ReadAll(reply.Body)
	require.NoError(t, err)
	got, message := code(t, b)
	require.Equal(t, "slow_body", got)
	require.Contains(t, message, "4 bytes of the body came within 200ms")
	_, err = body.ReadByte()
	require.ErrorIs(t, err, io.EOF, "the connection is closed")
	_, err = io.ReadAll(header)
	require.NoError(t, err, "this one, too")
	require.Zero(t, s.held.Load())
}

// A connection beyond the limit waits until another one is closed.
func TestConnections(t *testing.T) {
	_, addr, _, _ := running(t, &identity{}, Options{Connections: 2})
	http.DefaultClient.CloseIdleConnections()
	const question = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	first, answer := dial(t, addr, question)
	_, err := answer.ReadString('\n')
	require.NoError(t, err)
	_, answer = dial(t, addr, question)
	_, err = answer.ReadString('\n')
	require.NoError(t, err)
	third, answer := dial(t, addr, question)
	require.NoError(t, third.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = answer.ReadString('\n')
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
	first.Close()
	require.NoError(t, third.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = answer.ReadString('\n')
	require.NoError(t, err)
}

// 400 connections that send nothing, or only a part of a request, do not prevent others
// from being answered.
func TestCrowd(t *testing.T) {
	_, addr, _, _ := running(t, &identity{}, Options{})
	require.Eventually(t, isReady(t, addr), 10*time.Second, time.Millisecond)
	for i := range 400 {
		text := ""
		if i%2 == 0 {
			text = fmt.Sprintf("POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nfilm", 1<<20+i)
		}
		dial(t, addr, text)
	}
	for range 20 {
		status, _, b := ask(t, "http://"+addr+"/predict", bytes.NewReader(film(t)))
		require.Equal(t, 200, status, "%s", b)
	}
}

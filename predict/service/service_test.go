package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/predict"
	"github.com/stretchr/testify/require"
)

// identity is a backend and engine that returns the image itself as its probabilities.
type identity struct {
	hold chan struct{} // unless nil, each call first receives from it
	busy atomic.Int32
	fail error
}

func (e *identity) Open(*predict.Artifact) (predict.Engine, error) { return e, nil }
func (e *identity) Close() error                                   { return nil }
func (e *identity) Probabilities(images []float32, n int) ([]float32, error) {
	e.busy.Add(1)
	defer e.busy.Add(-1)
	if e.hold != nil {
		<-e.hold
	}
	return images, e.fail
}

// artifact returns a model for 16x16 pixels that finds bright pixels. It says that it was
// trained on phantoms.
func artifact() *predict.Artifact {
	task := data.Binary("lung")
	task.Output = data.Sigmoid
	p := data.DefaultPreparation()
	p.Size, p.CLAHE = 16, false
	return &predict.Artifact{Model: predict.Model{
		Name: "bright", Task: task, Preparation: p, Network: []byte(`{}`), Folds: 1,
		Point:    predict.OperatingPoint{Rules: []metric.Rule{metric.ThresholdRule(0.5, 0)}},
		Training: predict.Training{Phantoms: true},
	}}
}

// A journal is a log that several goroutines may write.
type journal struct {
	mutex sync.Mutex
	text  strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return j.text.String()
}

// serve returns a service over an engine, its address, and its log.
func serve(t *testing.T, e *identity, opt Options) (*Service, string, *journal) {
	p, err := predict.New(artifact(), e, &predict.Options{MaxPixels: 1 << 20})
	require.NoError(t, err)
	var log journal
	opt.Log = slog.New(slog.NewJSONHandler(&log, nil))
	s, err := New(p, &opt)
	require.NoError(t, err)
	server := httptest.NewServer(s)
	t.Cleanup(func() { server.Close(); require.NoError(t, p.Close()) })
	return s, server.URL, &log
}

// bright returns a PNG of 256x128 pixels with a white rectangle.
func bright(t *testing.T, r image.Rectangle) []byte {
	img := image.NewGray(image.Rect(0, 0, 256, 128))
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			img.SetGray(x, y, color.Gray{Y: 255})
		}
	}
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, img))
	return b.Bytes()
}

var spot = image.Rect(32, 16, 160, 80)

// film returns a DICOM file of 16x16 pixels with the data of a patient.
func film(t *testing.T) []byte {
	f := &dicom.Film{
		Rows: 16, Columns: 16, Bits: 8, Pix8: make([]uint8, 256), White: 255, RowSpacing: 0.5, ColumnSpacing: 0.25, Spacing: dicom.PixelSpacing,
		PatientName: "Sauer^Kraut", PatientID: "MRN-4711", BirthDate: "19700102", ReferringPhysician: "Dr^Who", Sex: "F", Age: "056Y",
		StudyUID: "1.2.3", SeriesUID: "1.2.3.4", SOPInstanceUID: "1.2.3.4.5", AccessionNumber: "ACC-99", Photometric: "MONOCHROME2",
	}
	for i := range 64 {
		f.Pix8[i] = 255
	}
	var b bytes.Buffer
	require.NoError(t, dicom.Write(&b, f, dicom.ExplicitLittleEndian))
	return b.Bytes()
}

// secrets are the parts of film that no log may contain.
var secrets = []string{"Sauer", "Kraut", "MRN-4711", "19700102", "Who", "056Y", "1.2.3", "ACC-99"}

// ask posts a body and returns the status, the header and the answer.
func ask(t *testing.T, url string, body io.Reader, header ...string) (int, http.Header, []byte) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	reply, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer reply.Body.Close()
	b, err := io.ReadAll(reply.Body)
	require.NoError(t, err)
	return reply.StatusCode, reply.Header, b
}

func get(t *testing.T, url string) (int, http.Header, string) {
	reply, err := http.Get(url)
	require.NoError(t, err)
	defer reply.Body.Close()
	b, err := io.ReadAll(reply.Body)
	require.NoError(t, err)
	return reply.StatusCode, reply.Header, string(b)
}

// code returns the code and message of a failure.
func code(t *testing.T, b []byte) (string, string) {
	var f struct {
		Error struct{ Code, Message string }
		ID    string
	}
	require.NoError(t, json.Unmarshal(b, &f), "%s", b)
	require.NotEmpty(t, f.ID)
	return f.Error.Code, f.Error.Message
}

func decode(t *testing.T, b []byte) image.Image {
	img, err := png.Decode(bytes.NewReader(b))
	require.NoError(t, err)
	return img
}

func TestJSON(t *testing.T) {
	_, url, _ := serve(t, &identity{}, Options{})
	status, header, b := ask(t, url+"/predict", bytes.NewReader(bright(t, spot)), "X-Request-Id", "film-7")
	require.Equal(t, 200, status, "%s", b)
	require.Equal(t, "application/json", header.Get("Content-Type"))
	require.Equal(t, "film-7", header.Get("X-Request-Id"))
	var a map[string]any
	require.NoError(t, json.Unmarshal(b, &a))
	require.Equal(t, "film-7", a["id"])
	require.Equal(t, map[string]any{"name": "bright"}, a["model"])
	require.Equal(t, true, a["positive"])
	require.Equal(t, []any{"research use, not for diagnosis", "trained on drawn phantoms, not on patients"}, a["notices"])
	finding := a["findings"].([]any)[0].(map[string]any)
	require.Equal(t, map[string]any{"x": 32.0, "y": 16.0, "width": 128.0, "height": 64.0}, finding["box"], "a pixel of the network is 16x8 of the film")
	require.NotContains(t, a, "overlay_png")

	status, _, b = ask(t, url+"/predict", bytes.NewReader(film(t)))
	require.Equal(t, 200, status, "%s", b)
	require.NoError(t, json.Unmarshal(b, &a))
	finding = a["findings"].([]any)[0].(map[string]any)
	require.Equal(t, 4*16*0.5*0.25, finding["area_mm2"])
	for _, s := range secrets {
		require.NotContains(t, string(b), s)
	}
}

func TestPictures(t *testing.T) {
	_, url, _ := serve(t, &identity{}, Options{})
	body := bright(t, spot)
	status, header, mask := ask(t, url+"/predict/mask", bytes.NewReader(body))
	require.Equal(t, 200, status, "%s", mask)
	require.Equal(t, "image/png", header.Get("Content-Type"))
	require.Equal(t, "true", header.Get("Hcunet-Positive"))
	require.Contains(t, header.Get("Hcunet-Notice"), predict.PhantomNotice)
	require.Contains(t, string(mask), predict.PhantomNotice)
	img := decode(t, mask).(*image.Gray)
	require.Equal(t, decode(t, body).(*image.Gray).Pix, img.Pix)

	_, _, overlay := ask(t, url+"/predict/overlay", bytes.NewReader(body))
	drawn := decode(t, overlay)
	require.Equal(t, image.Rect(0, 0, 256, 128), drawn.Bounds())
	require.Equal(t, color.RGBAModel.Convert(color.White), color.RGBAModel.Convert(drawn.At(80, 40)), "inside the outline is the film")
	rim := color.RGBAModel.Convert(drawn.At(80, 16)).(color.RGBA)
	require.False(t, rim.R == rim.G && rim.G == rim.B, "the outline has a colour: %v", rim)
	_, _, same := ask(t, url+"/predict", bytes.NewReader(body), "Accept", "image/png")
	require.Equal(t, overlay, same)

	_, _, b := ask(t, url+"/predict?with=film,overlay,mask&side=64", bytes.NewReader(body))
	var a struct {
		Film    []byte `json:"film_png"`
		Overlay []byte `json:"overlay_png"`
		Mask    []byte `json:"mask_png"`
	}
	require.NoError(t, json.Unmarshal(b, &a))
	require.Equal(t, mask, a.Mask, "a mask has always the film's size")
	require.Equal(t, image.Rect(0, 0, 64, 32), decode(t, a.Overlay).Bounds())
	seen := decode(t, a.Film)
	require.Equal(t, image.Rect(0, 0, 64, 32), seen.Bounds())
	require.Equal(t, color.Gray{Y: 255}, color.GrayModel.Convert(seen.At(8, 4)))
	require.Equal(t, color.Gray{}, color.GrayModel.Convert(seen.At(7, 4)))
}

func TestRefused(t *testing.T) {
	_, url, log := serve(t, &identity{}, Options{MaxBody: 1 << 20})
	var large bytes.Buffer
	require.NoError(t, png.Encode(&large, image.NewGray(image.Rect(0, 0, 1<<11, 1<<10))))
	dcm := film(t)
	for name, c := range map[string]struct {
		path, body, accept, contentType string
		status                          int
		code, says                      string
	}{
		"empty":       {status: 400, code: "empty", says: "the body is empty"},
		"text":        {body: strings.Repeat("no film ", 100), status: 422, code: "malformed", says: "wanted a DICOM, PNG or JPEG file"},
		"cut PNG":     {body: string(bright(t, spot)[:60]), status: 422, code: "malformed", says: "picture: png: "},
		"cut DICOM":   {body: string(dcm[:len(dcm)-9]), status: 422, code: "malformed", says: "dicom: "},
		"many pixels": {body: large.String(), status: 413, code: "too_large", says: "image of 2048x1024 pixels; at most 1048576 are read"},
		"large":       {body: strings.Repeat("x", 1<<20+1), status: 413, code: "too_large", says: "wanted at most 1048576 bytes"},
		"form":        {body: "x", contentType: "multipart/form-data; boundary=x", status: 415, code: "unsupported", says: "--data-binary"},
		"accept":      {body: "x", accept: "text/html", status: 406, code: "accept", says: `"text/html"; there are application/json and image/png`},
		"query":       {path: "/predict?as=mask", body: "x", status: 400, code: "query", says: `"as"; wanted with or side`},
		"with":        {path: "/predict?with=mask,music", body: "x", status: 400, code: "query", says: "wanted film, overlay, mask"},
		"side":        {path: "/predict/overlay?side=9", body: "x", status: 400, code: "query", says: `side is "9"; wanted 16 to`},
		"path":        {path: "/films", body: "x", status: 404, code: "not_found", says: "/predict/mask"},
		"method":      {path: "/healthz", body: "x", status: 405, code: "method", says: `"POST" came; wanted GET`},
	} {
		if c.path == "" {
			c.path = "/predict"
		}
		status, _, b := ask(t, url+c.path, strings.NewReader(c.body), "Accept", c.accept, "Content-Type", c.contentType)
		require.Equal(t, c.status, status, "%s: %s", name, b)
		got, message := code(t, b)
		require.Equal(t, c.code, got, name)
		require.Contains(t, message, c.says, name)
		require.Contains(t, log.String(), `"error":"`+c.code+`"`)
		require.NotContains(t, log.String(), message, "it may quote the film")
	}
	// A body that does not say its length is cut off at the limit.
	status, _, b := ask(t, url+"/predict", io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), strings.NewReader("x")))
	require.Equal(t, 413, status, "%s", b)
	reply, err := http.Get(url + "/predict")
	require.NoError(t, err)
	reply.Body.Close()
	require.Equal(t, 405, reply.StatusCode)
	require.Equal(t, "POST", reply.Header.Get("Allow"))
}

// If the queue is full, a request is answered with 429 at once.
func TestBusy(t *testing.T) {
	e := &identity{hold: make(chan struct{})}
	s, url, _ := serve(t, e, Options{Queue: 1})
	done := make(chan int)
	body := bright(t, spot)
	go func() {
		status, _, _ := ask(t, url+"/predict", bytes.NewReader(body))
		done <- status
	}()
	require.Eventually(t, func() bool { return e.busy.Load() == 1 }, 10*time.Second, time.Millisecond)
	status, header, b := ask(t, url+"/predict", bytes.NewReader(body))
	require.Equal(t, 429, status)
	require.Equal(t, "1", header.Get("Retry-After"))
	got, message := code(t, b)
	require.Equal(t, "busy", got)
	require.Contains(t, message, "1 films are at work or waiting")
	// A client that sends all of a large body before it reads gets the answer as well.
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "POST /predict HTTP/1.0\r\nContent-Length: 3000000\r\n\r\n"+strings.Repeat("film", 750000))
	require.NoError(t, err)
	said, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Contains(t, string(said), "429 Too Many Requests")
	_, _, metrics := get(t, url+"/metrics")
	require.Contains(t, metrics, "hcunet_queue_films 1")
	e.hold <- struct{}{}
	require.Equal(t, 200, <-done)

	// All bodies together have a limit.
	s.held.Add(s.opt.MaxBodies)
	status, _, b = ask(t, url+"/predict", bytes.NewReader(body))
	require.Equal(t, 429, status)
	_, message = code(t, b)
	require.Contains(t, message, "too many films are being received")
	s.held.Add(-s.opt.MaxBodies)
	go func() { e.hold <- struct{}{} }()
	status, _, _ = ask(t, url+"/predict", bytes.NewReader(body))
	require.Equal(t, 200, status)
	require.Zero(t, s.held.Load())
	require.Empty(t, s.places)
}

func TestSlowAnswer(t *testing.T) {
	e := &identity{hold: make(chan struct{})}
	s, url, _ := serve(t, e, Options{Answer: 30 * time.Millisecond})
	status, header, b := ask(t, url+"/predict", bytes.NewReader(bright(t, spot)))
	require.Equal(t, 503, status)
	require.Equal(t, "1", header.Get("Retry-After"))
	got, message := code(t, b)
	require.Equal(t, "slow", got)
	require.Contains(t, message, "within 30ms")
	require.Empty(t, s.places)
	close(e.hold)
}

// If the client has gone, the request ends and is logged with status 499.
func TestGone(t *testing.T) {
	e := &identity{hold: make(chan struct{})}
	s, url, log := serve(t, e, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/predict", bytes.NewReader(bright(t, spot)))
	require.NoError(t, err)
	go func() {
		for e.busy.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	_, err = http.DefaultClient.Do(r)
	require.ErrorIs(t, err, context.Canceled)
	require.Eventually(t, func() bool { return strings.Contains(log.String(), `"status":499`) }, 10*time.Second, time.Millisecond)
	require.Empty(t, s.places)
	close(e.hold)
}

// The cause of a fault is written to the log, not to the client.
func TestFaults(t *testing.T) {
	e := &identity{fail: errors.New("the weights are made of cheese")}
	s, url, log := serve(t, e, Options{})
	status, _, b := ask(t, url+"/predict", bytes.NewReader(bright(t, spot)))
	require.Equal(t, 500, status)
	got, message := code(t, b)
	require.Equal(t, "internal", got)
	require.NotContains(t, message, "cheese")
	require.Contains(t, log.String(), "cheese")

	s.routes["/fault"] = map[string]handler{"GET": func(*exchange) error { panic("Sauer^Kraut") }}
	status, _, text := get(t, url+"/fault")
	require.Equal(t, 500, status)
	require.NotContains(t, text+log.String(), "Sauer")
	require.Contains(t, log.String(), "service_test.go", "the stack is in the log")
	status, _, text = get(t, url+"/metrics")
	require.Equal(t, 200, status, "the service goes on")
	require.Contains(t, text, "hcunet_panics_total 1")
}

// Logs and metrics contain no patient data, whether the film is predicted or refused, and
// nothing that a client writes into paths, queries and headers.
func TestPrivacy(t *testing.T) {
	_, url, log := serve(t, &identity{}, Options{})
	dcm := film(t)
	for _, body := range [][]byte{dcm, dcm[:len(dcm)-9], bytes.Replace(dcm, []byte("MONOCHROME2"), []byte("Sauer^Kraut"), 1)} {
		for _, path := range []string{"/predict", "/predict/mask", "/predict/Sauer", "/predict?Sauer=Kraut", "/predict?with=Sauer"} {
			ask(t, url+path, bytes.NewReader(body), "X-Request-Id", "Sauer Kraut", "User-Agent", "Sauer", "Referer", "http://Sauer/")
		}
	}
	_, _, metrics := get(t, url+"/metrics")
	require.Equal(t, 15, strings.Count(log.String(), `"msg":"request"`))
	for _, s := range secrets {
		require.NotContains(t, log.String(), s)
		require.NotContains(t, metrics, s)
	}
}

func TestRequestID(t *testing.T) {
	for _, id := range []string{"a", "0af7651916cd43dd8448eb211c80319c", "A-b_c.9"} {
		require.Equal(t, id, requestID(id))
	}
	for _, id := range []string{"", "a b", "a\nb", "ä", `"`, strings.Repeat("x", 65)} {
		made := requestID(id)
		require.NotEqual(t, id, made)
		require.Equal(t, made, requestID(made))
	}
}

func TestModelAndMetrics(t *testing.T) {
	_, url, _ := serve(t, &identity{}, Options{})
	status, _, text := get(t, url+"/model")
	require.Equal(t, 200, status)
	require.Contains(t, text, `"name":"bright"`)
	require.Contains(t, text, `"notices":["research use, not for diagnosis","trained on drawn phantoms, not on patients"]`)
	ask(t, url+"/predict", bytes.NewReader(bright(t, spot)))
	ask(t, url+"/predict", bytes.NewReader(bright(t, image.Rectangle{})))
	_, _, text = get(t, url+"/metrics")
	for _, line := range []string{
		`hcunet_films_total{positive="true"} 1`,
		`hcunet_films_total{positive="false"} 1`,
		`hcunet_http_requests_total{method="POST",path="/predict",status="200"} 2`,
		`hcunet_film_seconds_count{stage="compute"} 2`,
		`hcunet_films_together_count 2`,
		`hcunet_model_info{digest="",name="bright"} 1`,
		`hcunet_queue_limit 16`,
		`go_goroutines`,
	} {
		require.Contains(t, text, line)
	}
}

func TestPage(t *testing.T) {
	_, url, _ := serve(t, &identity{}, Options{})
	status, header, html := get(t, url+"/")
	require.Equal(t, 200, status)
	require.Contains(t, html, "research use, not for diagnosis")
	require.Contains(t, html, "trained on drawn phantoms, not on patients")
	require.Contains(t, html, "<h1>lung</h1>")
	require.Contains(t, html, `name="viewport"`)
	require.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'")
	_, _, css := get(t, url+"/page.css")
	_, _, js := get(t, url+"/page.js")
	require.NotContains(t, html+css+js, "http", "nothing is fetched from elsewhere")
}

func TestOptions(t *testing.T) {
	p, err := predict.New(artifact(), &identity{}, nil)
	require.NoError(t, err)
	defer p.Close()
	_, err = New(p, &Options{Queue: -1})
	require.ErrorContains(t, err, "a limit below 0")
	_, err = New(p, &Options{MaxBody: 10, MaxBodies: 9})
	require.ErrorContains(t, err, "one file may have 10 bytes, but all together 9")
}

package service

import (
	"strconv"
	"time"

	"github.com/hcunet/hcunet/predict"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	films    *prometheus.CounterVec
	stages   *prometheus.HistogramVec
	together prometheus.Histogram
	flying   prometheus.Gauge
	open     prometheus.Gauge
	panics   prometheus.Counter
}

// buckets are the bounds of histograms in seconds, from the fastest film to the slowest.
var buckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

func newMetrics(s *Service) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hcunet_http_requests_total", Help: "Requests that were answered. Status 499: nobody waited for the answer."}, []string{"path", "method", "status"}),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hcunet_http_request_seconds", Help: "From a request's header to the end of its answer.", Buckets: buckets}, []string{"path"}),
		films:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hcunet_films_total", Help: "Films that were predicted."}, []string{"positive"}),
		stages:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hcunet_film_seconds", Help: "Time of a film in each stage. waited: from sending it to the engine until the result; compute: of its batch, summed over tiles.", Buckets: buckets}, []string{"stage"}),
		together: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "hcunet_films_together", Help: "Films that were computed together with a film, itself included.", Buckets: []float64{1, 2, 4, 8, 16, 32}}),
		flying:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "hcunet_http_requests_in_flight", Help: "Requests that are being received or answered."}),
		open:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "hcunet_connections", Help: "Open connections."}),
		panics:   prometheus.NewCounter(prometheus.CounterOpts{Name: "hcunet_panics_total", Help: "Requests that ended in a fault of the program."}),
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "hcunet_model_info", Help: "The model, in the labels.",
		ConstLabels: prometheus.Labels{"name": s.model.Name, "digest": s.model.Digest}})
	info.Set(1)
	m.registry.MustRegister(
		m.requests, m.seconds, m.films, m.stages, m.together, m.flying, m.open, m.panics, info,
		gauge("hcunet_queue_films", "Films at work or waiting.", func() float64 { return float64(len(s.places)) }),
		gauge("hcunet_queue_limit", "Films at work or waiting, at most.", func() float64 { return float64(cap(s.places)) }),
		gauge("hcunet_bodies_bytes", "Bytes of films' files that are held.", func() float64 { return float64(s.held.Load()) }),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

func (m *metrics) request(path, method string, status int, took time.Duration) {
	m.requests.WithLabelValues(path, method, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(path).Observe(took.Seconds())
}

func (m *metrics) film(r *predict.Result) {
	m.films.WithLabelValues(strconv.FormatBool(r.Positive)).Inc()
	t := r.Timings
	for stage, d := range map[string]time.Duration{
		"queued": t.Queued, "read": t.Read, "prepare": t.Prepare, "waited": t.Waited, "compute": t.Compute, "total": t.Total,
	} {
		m.stages.WithLabelValues(stage).Observe(d.Seconds())
	}
	m.together.Observe(float64(t.Batch))
}

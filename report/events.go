package report

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hcunet/hcunet/metric"
)

// Events is a file of events for TensorBoard: numbers and pictures, each with a
// name and a step. It is written during the run. The file of a killed run can
// be read up to its last complete record. Events must not be used by several
// goroutines at once.
//
// Source: tensorboard/compat/proto/event.proto and summary.proto;
// tensorboard/summary/writer/record_writer.py.
type Events struct {
	f   *os.File
	now func() time.Time
	err error // the first error
}

// EventOptions are optional settings of NewEvents.
type EventOptions struct {
	// First is the step at which the run begins or continues. TensorBoard then
	// ignores events from this step on in older files of the folder.
	First int64
	Now   func() time.Time // nil means time.Now
}

// NewEvents makes a new file of events in the folder, and the folder if needed.
// A run that is resumed gets one more file; TensorBoard shows all files of a
// folder as one run.
func NewEvents(dir string, o *EventOptions) (*Events, error) {
	var opt EventOptions
	if o != nil {
		opt = *o
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	// TensorBoard sorts files by name, in which the seconds have ten digits.
	seconds := opt.Now().Unix()
	for n := range 1000 {
		name := fmt.Sprintf("events.out.tfevents.%010d.hcunet.%03d", seconds, n)
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		e := &Events{f: f, now: opt.Now}
		e.record(0, 3, []byte("brain.Event:2")) // Event.file_version
		var start []byte
		start = protowire.AppendTag(start, 1, protowire.VarintType) // SessionLog.status
		start = protowire.AppendVarint(start, 1)                    // START
		e.record(opt.First, 7, start)                               // Event.session_log
		return e, e.err
	}
	return nil, fmt.Errorf("report: %s already has a thousand event files of this second", dir)
}

// Scalar writes a number.
func (e *Events) Scalar(tag string, step int64, v float64) error {
	var value []byte
	value = protowire.AppendTag(value, 1, protowire.BytesType) // Summary.Value.tag
	value = protowire.AppendString(value, tag)
	value = protowire.AppendTag(value, 2, protowire.Fixed32Type) // simple_value
	value = protowire.AppendFixed32(value, math.Float32bits(float32(v)))
	return e.summary(step, value)
}

// Image writes a picture.
func (e *Events) Image(tag string, step int64, m image.Image) error {
	var file bytes.Buffer
	if err := png.Encode(&file, m); err != nil {
		return err
	}
	var picture []byte
	for i, v := range []int{m.Bounds().Dy(), m.Bounds().Dx(), 4} { // height, width, colorspace RGBA
		picture = protowire.AppendTag(picture, protowire.Number(i+1), protowire.VarintType)
		picture = protowire.AppendVarint(picture, uint64(v))
	}
	picture = protowire.AppendTag(picture, 4, protowire.BytesType) // encoded_image_string
	picture = protowire.AppendBytes(picture, file.Bytes())
	var value []byte
	value = protowire.AppendTag(value, 1, protowire.BytesType) // Summary.Value.tag
	value = protowire.AppendString(value, tag)
	value = protowire.AppendTag(value, 4, protowire.BytesType) // image
	value = protowire.AppendBytes(value, picture)
	return e.summary(step, value)
}

// Epoch writes the numbers of an epoch. Their names get a prefix, such as "fold
// 0/". Values that were not measured are left out.
func (e *Events) Epoch(prefix string, row metric.Epoch) error {
	values := append(metric.Values{{Name: "train_loss", Value: row.TrainLoss}}, row.Values...)
	values = append(values, metric.Value{Name: "rate", Value: row.Rate}, metric.Value{Name: "images_per_second", Value: row.Speed})
	for _, v := range values {
		if !math.IsNaN(v.Value) {
			e.Scalar(prefix+v.Name, int64(row.Epoch), v.Value)
		}
	}
	return e.err
}

// Close syncs and closes the file. It returns the first error of any call.
func (e *Events) Close() error {
	return errors.Join(e.err, e.f.Sync(), e.f.Close())
}

// summary writes an event with one value.
func (e *Events) summary(step int64, value []byte) error {
	var s []byte
	s = protowire.AppendTag(s, 1, protowire.BytesType) // Summary.value
	s = protowire.AppendBytes(s, value)
	e.record(step, 5, s) // Event.summary
	return e.err
}

// record writes an event with the bytes in its field what.
func (e *Events) record(step int64, what protowire.Number, content []byte) {
	if e.err != nil {
		return
	}
	var event []byte
	event = protowire.AppendTag(event, 1, protowire.Fixed64Type) // wall_time, seconds
	event = protowire.AppendFixed64(event, math.Float64bits(float64(e.now().UnixMicro())/1e6))
	event = protowire.AppendTag(event, 2, protowire.VarintType) // step
	event = protowire.AppendVarint(event, uint64(step))
	event = protowire.AppendTag(event, what, protowire.BytesType)
	event = protowire.AppendBytes(event, content)
	_, e.err = e.f.Write(frame(event))
}

// frame adds length and checksums to a record, as in TFRecord files.
func frame(record []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(record)))
	out = binary.LittleEndian.AppendUint32(out, maskedCRC(out))
	out = append(out, record...)
	return binary.LittleEndian.AppendUint32(out, maskedCRC(record))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC returns the checksum of a TFRecord: a CRC that is rotated and shifted
// by a constant, because the CRC of data that contains CRCs is not reliable.
//
// Source: tensorflow/core/lib/hash/crc32c.h, Mask.
func maskedCRC(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

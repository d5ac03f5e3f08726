// Package codec lets package dicom read JPEG 2000, by the C library OpenJPEG. It
// is imported for its side effect:
//
//	import _ "github.com/hcunet/hcunet/data/dicom/codec"
//
// It does something only in programs built with the tag dicomcodec, on a machine
// with the library and pkg-config (on Debian: apt install libopenjp2-7-dev
// pkg-config):
//
//	go build -tags dicomcodec ./...
//
// Without the tag it builds everywhere, registers nothing, and such files stay a
// *dicom.UnsupportedError that names the tag.
//
// The library is C; what package dicom promises of hostile files ends at its
// door. What can be checked before is: a stream's sizes against the file's header,
// and its tiles against its length. (JPEG-LS is not here but in Go: CharLS 2.4.1
// never returns from some corrupt streams of 200 bytes.)
package codec

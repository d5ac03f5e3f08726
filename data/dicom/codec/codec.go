// Package codec lets package dicom read JPEG-LS and JPEG 2000, by the C
// libraries CharLS and OpenJPEG. It is imported for its side effect:
//
//	import _ "github.com/hcunet/hcunet/data/dicom/codec"
//
// It does something only in programs built with the tag dicomcodec, on a machine
// with the libraries and pkg-config (on Debian: apt install libcharls-dev
// libopenjp2-7-dev pkg-config):
//
//	go build -tags dicomcodec ./...
//
// Without the tag it builds everywhere, registers nothing, and such files stay a
// *dicom.UnsupportedError that names the tag.
//
// The libraries are C and C++; what package dicom promises of hostile files ends
// at their door. What can be checked before is: a stream's sizes against the
// file's header, and its tiles against its length.
package codec

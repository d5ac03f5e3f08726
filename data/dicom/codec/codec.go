// Package codec lets package dicom read JPEG 2000 with the C library OpenJPEG.
// It is imported for its side effect:
//
//	import _ "github.com/hcunet/hcunet/data/dicom/codec"
//
// It has an effect only in programs built with the tag dicomcodec, on a machine
// with the library and pkg-config (on Debian: apt install libopenjp2-7-dev
// pkg-config):
//
//	go build -tags dicomcodec ./...
//
// Without the tag it builds everywhere and registers nothing, and for such files
// dicom returns a *dicom.UnsupportedError that names the tag.
//
// OpenJPEG is C code, so the promises of package dicom about hostile files do not
// hold for it. This package checks what it can before it calls the library: the
// sizes in a stream against the header of the file, and the number of tiles
// against the length of the stream. (JPEG-LS is decoded in Go, because CharLS
// 2.4.1 never returns from some corrupt streams of 200 bytes.)
package codec

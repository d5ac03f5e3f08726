package checkpoint

import (
	"bytes"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// For a file of another kind, the error of every reader names the kind.
func TestOpenNamesOtherKinds(t *testing.T) {
	picture := image.NewGray(image.Rect(0, 0, 3, 2))
	var pngFile, jpegFile, gifFile bytes.Buffer
	require.NoError(t, png.Encode(&pngFile, picture))
	require.NoError(t, jpeg.Encode(&jpegFile, picture, nil))
	require.NoError(t, gif.Encode(&gifFile, picture, nil))
	dir := t.TempDir()
	for name, c := range map[string]struct{ content, want string }{
		"png":          {pngFile.String(), "a PNG image"},
		"jpeg":         {jpegFile.String(), "a JPEG image"},
		"gif":          {gifFile.String(), "a GIF image"},
		"bmp":          {"BM\x9a\x04\x00\x00\x00\x00\x00\x00\x36\x04\x00\x00", "a BMP image"},
		"tiff":         {"II*\x00\x08\x00\x00\x00\x01\x00", "a TIFF image"},
		"webp":         {"RIFF\x24\x00\x00\x00WEBPVP8 ", "a WebP image"},
		"dicom":        {strings.Repeat("\x00", 128) + "DICM\x02\x00\x00\x00UL", "a DICOM file"},
		"gzip":         {"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "gzip; unpack it first"},
		"xz":           {"\xfd7zXZ\x00\x00\x04\xe6\xd6", "xz; unpack it first"},
		"zstandard":    {"\x28\xb5\x2f\xfd\x24\x05)\x00\x00", "zstandard"},
		"bzip2":        {"BZh91AY&SY", "bzip2"},
		"pdf":          {"%PDF-1.7\n%\xe2\xe3", "a PDF"},
		"hdf5":         {"\x89HDF\r\n\x1a\n\x00\x00", "Keras"},
		"npy":          {"\x93NUMPY\x01\x00v\x00{'descr'", "NumPy"},
		"tflite":       {"\x1c\x00\x00\x00TFL3\x14\x00", "TensorFlow Lite"},
		"gguf":         {"GGUF\x03\x00\x00\x00\x00", "GGUF"},
		"html":         {"\n <!DOCTYPE html><html><body>404</body></html>", "an HTML page"},
		"html, plain":  {"<HTML><body>404</body></html>", "an HTML page"},
		"xml":          {"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"},
		"lfs":          {"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull"},
		"text":         {"epoch,loss\n0,0.5\n", `text that begins with "epoch,loss\n0,0.5\n"`},
		"cut text":     {strings.Repeat("ä", 400), `text that begins with "ää`},
		"json":         {`{"version": 1, "layers": 34}`, `text that begins with "{\"version`},
		"onnx":         {"\x08\x07\x12\x07pytorch\x1a\x061.13.1:", "an ONNX model"}, // torch.onnx.export of torch 1.13.1
		"pickle":       {"\x80\x03}q\x00.", "a Python pickle, but not one of torch.save"},
		"new pickle":   {"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00}\x94.", "a Python pickle, but not one of torch.save"},
		"zip":          {string(zipped(t, "a.npy", "", "b.npy", "")), `without torch.save's data.pkl; it holds "a.npy", "b.npy"`},
		"empty zip":    {string(zipped(t)), "an empty zip archive"},
		"tar":          {string(tarred(t, "x/y.txt", "")), `without torch.save's storages; it holds "x/y.txt"`},
		"empty":        {"", "an empty file"},
		"one byte":     {"\x80", "begins with 80"},
		"gibberish":    {strings.Repeat("\x80", 300), "a file of unknown kind that begins with 80 80 80 80 80 80 80 80 80 80 80 80"},
		"eight zeros":  {strings.Repeat("\x00", 8), "begins with 00"},
		"control text": {"epoch\x00loss and more", "begins with 65 70 6f 63 68 00"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", ""))
			require.NoError(t, os.WriteFile(path, []byte(c.content), 0o666))
			_, err := Open(path)
			var kind *KindError
			require.ErrorAs(t, err, &kind)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, path)
			_, err = OpenTorch(path, nil)
			require.ErrorAs(t, err, &kind)
			require.ErrorContains(t, err, c.want)
			_, err = OpenSafetensors(path)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "a header of", "its first bytes are no length")
		})
	}
	_, err := Open(filepath.Join(dir, "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(dir)
	require.Error(t, err)
	_, err = OpenSafetensors("testdata/t113_views_zip.pth")
	require.ErrorContains(t, err, "torch.save, which Open and OpenTorch read")
}

// For a broken checkpoint the error says where it is broken.
func TestOpenBroken(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"zip":         {"PK\x03\x04 cut off", "zip"},
		"safetensors": {"\x08\x00\x00\x00\x00\x00\x00\x00{}", "a header of 8 bytes in a file of 10"},
		"pickle":      {"\x80\x02\x8a\x0a" + magicNumber + ".", "ends early"},
	} {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(c.content), 0o666))
		_, err := Open(path)
		var format *FormatError
		require.ErrorAs(t, err, &format, name)
		require.ErrorContains(t, err, c.want)
	}
}

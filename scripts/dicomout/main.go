// Command dicomout writes the masks of a film as a DICOM Segmentation and as a
// Secondary Capture. check.py in this folder reads them with other software.
//
//	go run ./scripts/dicomout -film film.dcm -out /tmp/out pneumothorax=mask.png lungs=lungs.png
package main

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/dicom/derived"
)

func main() {
	film := flag.String("film", "", "the DICOM file that the masks are of")
	out := flag.String("out", "", "the folder to write segmentation.dcm and capture.dcm to")
	noPlane := flag.Bool("no-plane", false, "leave out the plane of a film without frame of reference")
	flag.Parse()
	if err := run(*film, *out, *noPlane, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "dicomout:", err)
		os.Exit(1)
	}
}

func run(path, out string, noPlane bool, args []string) error {
	film, err := dicom.Open(path, nil)
	if err != nil {
		return err
	}
	known := map[string]derived.Segment{"pneumothorax": derived.Pneumothorax, "lungs": derived.Lungs}
	var masks []derived.Mask
	for _, a := range args {
		name, file, _ := strings.Cut(a, "=")
		segment, ok := known[name]
		if !ok {
			return fmt.Errorf("%q: want pneumothorax=FILE or lungs=FILE", a)
		}
		img, err := readMask(file)
		if err != nil {
			return err
		}
		masks = append(masks, derived.Mask{Segment: segment, Image: img})
	}
	opt := &derived.Options{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Algorithm: "hcunet example", Version: "1.0", NoPlane: noPlane}
	for name, write := range map[string]func(io.Writer, *dicom.Film, []derived.Mask, *derived.Options) error{
		"segmentation.dcm": derived.WriteSegmentation, "capture.dcm": derived.WriteCapture,
	} {
		var b bytes.Buffer
		if err := write(&b, film, masks, opt); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, name), b.Bytes(), 0o666); err != nil {
			return err
		}
	}
	return nil
}

func readMask(path string) (*image.Gray, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	mask := image.NewGray(image.Rect(0, 0, img.Bounds().Dx(), img.Bounds().Dy()))
	draw.Draw(mask, mask.Rect, img, img.Bounds().Min, draw.Src)
	return mask, nil
}

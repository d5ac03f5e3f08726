// Package phantom draws pictures that look like chest films, with masks that
// look like pneumothoraces, so that the whole pipeline from DICOM to submission
// runs without a download.
//
// A phantom is a drawing of a torso, two lung fields, ribs, clavicles, spine,
// heart, vessels and film grain, different for every patient. In a quarter of the
// phantoms one lung is separated from the chest wall: between the wall and a fine
// bright line (the visceral pleura) there are no vessels and the film is darker.
// This gap is the mask. Nothing was learned or copied from a real film, and a score
// on phantoms says nothing about patients. Every file says that it is a phantom: in
// its name, in the patient's name, in the body part examined, in the pixels, and in
// a README next to it.
//
// Coordinates are fractions of the film: x runs right and y down, both from 0
// to 1. As on a real film the patient's left is on the right of the picture.
package phantom

import (
	"fmt"
	"image"
	"math/rand/v2"
	"strings"
)

// Size is the width and height of a film in pixels, the same as in SIIM-ACR.
const Size = 1024

// positivesIn8 is the number of films with a pneumothorax among each eight in a
// row: about the share in the SIIM-ACR training set (2,379 of 10,675).
const positivesIn8 = 2

const prefix = "phantom-"

// Is returns whether the name of a film is that of a phantom.
func Is(name string) bool { return strings.HasPrefix(name, prefix) }

// Case is one drawn film with its true mask.
type Case struct {
	Name    string // "phantom-<seed>-<number>", the name of the file and the id in the CSV
	Patient string // "PHANTOM-<seed>-<number>"; some patients have two films
	Age     int    // years, 18 to 89
	Sex     string // "F" or "M"
	View    string // "PA" or "AP"

	Image *image.Gray // Size x Size
	Mask  *image.Gray // Size x Size, 0 and 255; all 0 without pneumothorax
}

// Positive returns whether film number index (from 0) of the series shows a
// pneumothorax. Exactly two of the films 8k to 8k+7 do.
func Positive(seed uint64, index int) bool {
	r := rand.New(rand.NewPCG(seed, uint64(index/8)^0xa5a5a5a5))
	for _, i := range r.Perm(8)[:positivesIn8] {
		if i == index%8 {
			return true
		}
	}
	return false
}

// patientOf returns the number of the patient on film index. Of each ten films
// the last shows the same patient as the film before it.
func patientOf(index int) int {
	if index%10 == 9 {
		return index - 1
	}
	return index
}

// Draw returns film number index (from 0) of the series of seed. It depends only on
// these two numbers, not on earlier calls. On another kind of processor a pixel may
// differ by one grey level, because some processors fuse multiplication and addition.
// It panics if index is negative.
func Draw(seed uint64, index int) Case {
	if index < 0 {
		panic(fmt.Errorf("phantom: film number %d; films are counted from 0", index))
	}
	who := patientOf(index)
	p := newPatient(rand.New(rand.NewPCG(seed, uint64(who))))
	r := rand.New(rand.NewPCG(seed^0x5bf03635, uint64(index)))
	p.place(r)
	if Positive(seed, index) {
		p.collapse(r)
	}
	img, mask := p.draw(r)
	return Case{
		Name:    fmt.Sprintf("%s%d-%05d", prefix, seed, index),
		Patient: fmt.Sprintf("PHANTOM-%d-%05d", seed, who),
		Age:     p.age,
		Sex:     p.sex,
		View:    p.view,
		Image:   img,
		Mask:    mask,
	}
}

// Package phantom draws chest-film-like pictures with pneumothorax-like masks,
// so that the whole chain from DICOM to submission runs with nothing downloaded.
//
// A phantom is a drawing: a torso, two lung fields, ribs, clavicles, spine, heart,
// vessels and film grain, different for every patient. In a quarter of them one
// lung has come away from the chest wall: between the wall and a fine bright
// line (the visceral pleura) there are no vessels and the film is darker. That
// gap is the mask. Nothing was learned from or copied out of a real film, and a
// score reached on phantoms says nothing about patients. Every file says so: in its
// name, as the patient's name, as the part of the body examined, in the pixels, and
// in a README beside it.
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

// Size is the width and height of a film in pixels, that of the SIIM-ACR films.
const Size = 1024

// positivesIn8 of each eight films in a row show a pneumothorax: about the share
// of the SIIM-ACR training set (2,379 of 10,675).
const positivesIn8 = 2

const prefix = "phantom-"

// Is says whether the name of a film is that of a phantom.
func Is(name string) bool { return strings.HasPrefix(name, prefix) }

// Case is one drawn film with its truth.
type Case struct {
	Name    string // "phantom-<seed>-<number>", the name of the file and the id in the CSV
	Patient string // "PHANTOM-<seed>-<number>"; some patients have two films
	Age     int    // years, 18 to 89
	Sex     string // "F" or "M"
	View    string // "PA" or "AP"

	Image *image.Gray // Size x Size
	Mask  *image.Gray // Size x Size, 0 and 255; all 0 without pneumothorax
}

// Positive says whether film number index (from 0) of the series shows a
// pneumothorax. Of films 8k to 8k+7 exactly two do.
func Positive(seed uint64, index int) bool {
	r := rand.New(rand.NewPCG(seed, uint64(index/8)^0xa5a5a5a5))
	for _, i := range r.Perm(8)[:positivesIn8] {
		if i == index%8 {
			return true
		}
	}
	return false
}

// patientOf returns the number of the patient on film index: of ten films in a
// row the last shows the patient of the one before it again.
func patientOf(index int) int {
	if index%10 == 9 {
		return index - 1
	}
	return index
}

// Draw returns film number index (from 0) of the series that belongs to seed. It
// is a function of the two numbers alone, in any order; between processors of
// different kinds a pixel may differ by a grey level, as some fuse multiplication and
// addition. It panics if index is negative.
func Draw(seed uint64, index int) Case {
	if index < 0 {
		panic(fmt.Errorf("phantom: film number %d; they count from 0", index))
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

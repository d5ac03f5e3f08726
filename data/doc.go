// Package data says what images and masks for segmentation are about, how films
// become such images, and reads folders of them.
//
//   - [Task]: classes, channels, how scores become probabilities;
//   - [Preparation] and [Preparer]: from a film to a training image, and with
//     resize.Geometry the way back for masks;
//   - [Open]: a folder of prepared images as a [Dataset], and [Check], what a careful
//     person wants to know of it.
//
// The packages around it, in the order in which they know of each other: clahe,
// resize, folds, picture, maskcsv and dicom know none of the others; data stands on
// them; prepare makes the folder that Open reads, and phantom draws films to try it
// with.
//
// What is wrong with a file is an error that names it. Nothing here needs libtorch.
package data

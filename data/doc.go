// Package data describes the task of a data set, turns films into training
// images, and reads folders of images and masks.
//   - [Task]: the classes, the channels, and how scores become probabilities;
//   - [Preparation] and [Preparer]: from a film to a training image, and with resize.Geometry from a mask of the image back to the film;
//   - [Open] reads a folder of prepared images as a [Dataset]; [Check] reports its counts, statistics and suspicious cases.
//
// The packages below this folder depend on each other in one direction. clahe,
// resize, folds, picture, maskcsv and dicom import none of the others; data imports
// them; prepare makes the folder that Open reads, and phantom draws films to test
// it with.
//
// An error about a file names the file. Nothing here needs libtorch.
package data

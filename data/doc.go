// Package data reads and prepares medical images for segmentation: films from
// DICOM, PNG and JPEG files, masks from run-length CSVs or images, folders as data
// sets, and their division into folds.
//
// It has five parts that stand alone:
//
//   - [ReadImage] and [OpenImage] make any picture grey; package data/dicom reads
//     films, packages data/clahe and data/resize are the notebook's own chain from a
//     film to a training image;
//   - [ReadMasks] and [WriteSubmission] read and write the CSVs of the SIIM-ACR
//     challenge;
//   - [Prepare] turns films and masks into a folder of training images;
//   - [Open] reads such a folder;
//   - [KFold], [KFoldByArea] and [KFoldByGroup] divide it.
//
// Images are *image.Gray, row-major, 0 the darkest; masks are 0 and 255. What is
// wrong with a file is an error that names it. Nothing here needs libtorch.
package data

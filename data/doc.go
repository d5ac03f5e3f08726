// Package data reads and prepares medical images for segmentation: films from
// DICOM, PNG and JPEG files, masks from run-length CSVs or images, folders as data
// sets, and their division into folds.
//
//   - [Task] says what the images and masks of a set are about;
//   - package data/picture reads pictures, package data/dicom films; packages
//     data/clahe and data/resize are the notebook's own chain from a film to a
//     training image;
//   - [ReadMasks] and [WriteSubmission] read and write the CSVs of the SIIM-ACR
//     challenge;
//   - [Prepare] turns films and masks into a folder of training images;
//   - [Open] reads such a folder;
//   - [KFold], [KFoldByArea] and [KFoldByGroup] divide it.
//
// What is wrong with a file is an error that names it. Nothing here needs libtorch.
package data

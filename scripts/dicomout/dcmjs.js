// dcmjs.js FILM SEGMENTATION FOLDER loads a segmentation as OHIF 2 does, by dcmjs
// 0.28 (npm install dcmjs@0.28.0; NODE_PATH says where), and writes its label
// maps, 16 bits a pixel, to FOLDER/0.raw, 1.raw, ... check.py compares them.
const fs = require("fs");
const path = require("path");
const dcmjs = require("dcmjs");

const [film, segmentation, folder] = process.argv.slice(2);

function read(file) {
  const b = fs.readFileSync(file);
  return b.buffer.slice(b.byteOffset, b.byteOffset + b.length);
}

const dict = dcmjs.data.DicomMessage.readFile(read(film)).dict;
const source = dcmjs.data.DicomMetaDictionary.naturalizeDataset(dict);
// What OHIF assumes for an image without orientation and position.
const orientation = (source.ImageOrientationPatient || [1, 0, 0, 0, 1, 0]).map(Number);
const position = (source.ImagePositionPatient || [0, 0, 0]).map(Number);

const provider = {
  get(type) {
    switch (type) {
      case "imagePlaneModule":
        return {
          rows: source.Rows,
          columns: source.Columns,
          rowCosines: orientation.slice(0, 3),
          columnCosines: orientation.slice(3),
          imagePositionPatient: position,
          frameOfReferenceUID: source.FrameOfReferenceUID,
        };
      case "generalSeriesModule":
        return { seriesInstanceUID: source.SeriesInstanceUID, modality: source.Modality };
      case "generalImageModule":
      case "sopCommonModule":
        return { sopInstanceUID: source.SOPInstanceUID, sopClassUID: source.SOPClassUID };
      case "instance":
        return source;
    }
    return undefined;
  },
};
global.cornerstone = { metaData: provider };

const state = dcmjs.adapters.Cornerstone.Segmentation.generateToolState(
  ["film"], read(segmentation), provider, false, 1e-3);
state.labelmapBufferArray.forEach((buffer, i) => {
  fs.writeFileSync(path.join(folder, i + ".raw"), Buffer.from(buffer));
});
console.log(state.segMetadata.data.filter(Boolean).map(s => s.SegmentNumber + " " + s.SegmentLabel).join(", "));

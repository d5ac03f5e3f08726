#!/usr/bin/env python3
"""Reads the files of dicomout with other software.

    check.py FILM FOLDER [MASK.png ...]

FILM is the source, FOLDER holds segmentation.dcm and capture.dcm, and the masks
are those that dicomout was given, in their order. Each mask must come back bit
for bit from pydicom, highdicom and dcmtk, each object must be valid by dciodvfy,
and the references must name FILM. If node finds dcmjs, with which OHIF 2 loads segmentations, dcmjs must give the same masks too. over.png, the segmentation
over the film, goes to FOLDER, for a person to look at.

Needs Python with pydicom, highdicom and matplotlib (pip), dcmtk and dicom3tools
(apt).
"""
import os
import shutil
import subprocess
import sys
import tempfile

import highdicom
import matplotlib
import numpy as np
import pydicom
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def run(*args):
    return subprocess.run(args, capture_output=True, text=True, check=False)


def main(film, folder, *mask_paths):
    source = pydicom.dcmread(film)
    masks = [np.asarray(Image.open(p).convert("L")) > 0 for p in mask_paths]
    seg_path, cap_path = (os.path.join(folder, n) for n in ("segmentation.dcm", "capture.dcm"))

    for path in (seg_path, cap_path):
        r = run("dciodvfy", path)
        errors = [l for l in (r.stdout + r.stderr).splitlines() if l.startswith("Error")]
        assert not errors, (path, errors)
        r = run("dcmdump", path)
        assert r.returncode == 0 and "W:" not in r.stderr and "E:" not in r.stderr, r.stderr
    print("dciodvfy: no error; dcmdump: no warning")

    seg = pydicom.dcmread(seg_path)
    frames = seg.pixel_array.reshape(len(masks), source.Rows, source.Columns)
    for i, m in enumerate(masks):
        assert np.array_equal(frames[i] > 0, m), "pydicom: mask %d" % i
    print("pydicom: %d masks bit for bit, %s pixels" % (len(masks), [int(m.sum()) for m in masks]))

    hd = highdicom.seg.segread(seg_path)
    got = hd.get_pixels_by_source_instance([source.SOPInstanceUID])[0]
    for i, m in enumerate(masks):
        assert np.array_equal(got[..., i] > 0, m), "highdicom: mask %d" % i
        d = hd.get_segment_description(i + 1)
        print("highdicom: segment %d %s, %s, %s" % (
            i + 1, d.segment_label, d.segmented_property_category.meaning, d.segmented_property_type.meaning))
    study, series, instance = hd.get_source_image_uids()[0]
    assert (study, series, instance) == (source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID)

    with tempfile.TemporaryDirectory() as tmp:
        node = run("node", "-e", "require('dcmjs')") if shutil.which("node") else None
        if node is None or node.returncode != 0:
            print("dcmjs: not there, not asked")
        else:
            r = run("node", os.path.join(os.path.dirname(os.path.abspath(__file__)), "dcmjs.js"), film, seg_path, tmp)
            assert r.returncode == 0, r.stderr
            maps = [np.fromfile(os.path.join(tmp, f), np.uint16) for f in sorted(os.listdir(tmp))]
            for i, m in enumerate(masks):
                found = np.any([a == i + 1 for a in maps], axis=0)
                assert np.array_equal(found.reshape(m.shape), m), "dcmjs: mask %d" % i
            print("dcmjs: %d masks bit for bit: %s" % (len(masks), r.stdout.strip().splitlines()[-1]))
        for i, m in enumerate(masks):
            out = os.path.join(tmp, "%d.png" % i)
            r = run("dcmj2pnm", "+on", "+F", str(i + 1), "+Wm", seg_path, out)
            a = np.asarray(Image.open(out).convert("L"))
            assert r.returncode == 0, r.stderr
            assert np.array_equal(a > 0, m), "dcmtk: mask %d" % i
        print("dcmtk: %d masks bit for bit" % len(masks))
        out = os.path.join(tmp, "capture.png")
        r = run("dcmj2pnm", "+on", cap_path, out)
        assert r.returncode == 0, r.stderr
        dcmtk = np.asarray(Image.open(out).convert("RGB"))
    cap = pydicom.dcmread(cap_path)
    assert np.array_equal(cap.pixel_array, dcmtk), "capture: pydicom and dcmtk differ"
    assert cap.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    print("capture: %dx%d, the same to pydicom and dcmtk; %s; %s" % (
        cap.Columns, cap.Rows, cap.DerivationDescription, cap.BurnedInAnnotation))

    fig, axes = plt.subplots(1, 2, figsize=(20, 10), dpi=60)
    axes[0].imshow(source.pixel_array, cmap="gray")
    for i in range(len(masks)):
        lab = seg.SegmentSequence[i].RecommendedDisplayCIELabValue
        rgb = np.array(highdicom.color.CIELabColor.from_dicom_value(lab).to_rgb()) / 255
        layer = np.zeros(frames[i].shape + (4,))
        layer[frames[i] > 0] = (*rgb, 0.4)
        axes[0].imshow(layer)
    axes[0].set_title("segmentation over the film (pydicom)")
    axes[1].imshow(cap.pixel_array)
    axes[1].set_title("capture (pydicom)")
    for a in axes:
        a.axis("off")
    fig.tight_layout()
    fig.savefig(os.path.join(folder, "over.png"))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

#!/usr/bin/env python3
"""Does TensorBoard read the events that we write?

    pip install tensorboard
    python3 scripts/tensorboard/check.py

The events of a run that was stopped after 30 steps and went on from step 20
(go run ./scripts/tensorboard) are read by TensorBoard's own reader: every number
and the picture must come back, and what the first part had from step 20 on must
be forgotten.
"""
import io, os, struct, subprocess, tempfile, zlib

from tensorboard.backend.event_processing import event_accumulator

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def grey(png):
    """The pixels of a grey PNG whose rows have no filter or the filter "up"/"sub"."""
    at, data = 8, b""
    while at < len(png):
        n, kind = struct.unpack(">I4s", png[at:at + 8])
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", png[at + 8:at + 18])
            assert (depth, colour) == (8, 0)
        if kind == b"IDAT":
            data += png[at + 8:at + 8 + n]
        at += 12 + n
    raw, rows, above = zlib.decompress(data), [], [0] * width
    for y in range(height):
        kind, row = raw[y * (width + 1)], list(raw[y * (width + 1) + 1:(y + 1) * (width + 1)])
        assert kind in (0, 1, 2), kind
        for x in range(width):
            row[x] = (row[x] + (row[x - 1] if kind == 1 and x else 0) + (above[x] if kind == 2 else 0)) % 256
        rows.append(row)
        above = row
    return rows


with tempfile.TemporaryDirectory() as tmp:
    subprocess.run(["go", "run", "./scripts/tensorboard", tmp], cwd=ROOT, check=True)
    a = event_accumulator.EventAccumulator(tmp, size_guidance={"scalars": 0, "images": 0})
    a.Reload()
    assert sorted(a.Tags()["scalars"]) == ["fold 0/dice", "fold 0/images_per_second", "fold 0/rate", "fold 0/train_loss", "loss"], a.Tags()
    loss = a.Scalars("loss")
    assert [s.step for s in loss] == list(range(40)), [s.step for s in loss]
    for s in loss:
        assert s.value == struct.unpack("<f", struct.pack("<f", 1 / (s.step + 1)))[0], s
    for tag, value in ("dice", 0.75), ("train_loss", 0.25), ("images_per_second", 12.5):
        (s,) = a.Scalars("fold 0/" + tag)
        assert (s.step, s.value) == (2, value), s
    (m,) = a.Images("batch")
    assert (m.step, m.width, m.height) == (1, 5, 3), m
    assert grey(m.encoded_image_string) == [[0] * 5, [0, 0, 200, 0, 0], [0] * 5]
    assert a.FirstEventTimestamp() > 1.5e9
print("TensorBoard reads 40 steps of a run in two parts, the numbers of an epoch and a picture")

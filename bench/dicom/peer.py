"""Reads the pixels of DICOM files with pydicom, for the Go program in this folder.

The arguments are the number of rounds and the files. It prints the processor seconds of
the fastest round and the SHA-256 of all pixels of one round.
"""
import hashlib, json, os, sys, time

for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[v] = "1"
import pydicom

rounds, files = int(sys.argv[1]), sys.argv[2:]
pydicom.dcmread(files[0]).pixel_array  # imports the decoder
best = float("inf")
for _ in range(rounds):
    start, all = time.process_time(), []
    for f in files:
        all.append(pydicom.dcmread(f).pixel_array)
    best = min(best, time.process_time() - start)
h = hashlib.sha256()
for a in all:
    h.update(a.tobytes())
print(json.dumps({"Seconds": best, "SHA256": h.hexdigest(), "Version": pydicom.__version__}))

#!/usr/bin/python3
"""Makes ramp.j2k: 40 columns by 32 rows of 3*x + 5*y modulo 256, lossless.

Made on Debian 12 with python3-opencv 4.6.0 (OpenJPEG 2.5.0).
"""
import cv2, numpy as np

y, x = np.mgrid[0:32, 0:40]
a = ((3 * x + 5 * y) % 256).astype(np.uint8)
b = cv2.imencode(".jp2", a, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1].tobytes()
open("ramp.j2k", "wb").write(b[b.index(bytes.fromhex("ff4fff51")):])

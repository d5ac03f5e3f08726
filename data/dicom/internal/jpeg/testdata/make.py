#!/usr/bin/python3
"""Makes the JPEG files of this folder and prints the table of jpeg_test.go.

Made with Debian 12's python3-pil 9.4.0 and python3-opencv 4.6.0 (libjpeg-turbo
2.1.5, islow, fancy upsampling). Colour is hashed as YCbCr, before conversion.
"""
import hashlib, io
import cv2, numpy as np
from PIL import Image

y, x = np.mgrid[0:29, 0:37]
grey = (x * 5 + y * 3 + 90 * ((x - 11) ** 2 + (y - 17) ** 2 < 80) + (x * y) % 11 * 9) % 256
grey = grey.astype(np.uint8)
rgb = np.dstack([grey, grey[::-1], np.roll(grey, 7, 1)])


def pil(a, **kw):
    b = io.BytesIO()
    Image.fromarray(a).save(b, "JPEG", **kw)
    return b.getvalue()


def cv(a, *flags):
    return cv2.imencode(".jpg", a, list(flags))[1].tobytes()


files = {
    "grey": pil(grey, quality=90),
    "grey_q100": pil(grey, quality=100),
    "grey_q3": pil(grey, quality=3),
    "grey_restart": cv(grey, cv2.IMWRITE_JPEG_QUALITY, 75, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "grey_progressive": pil(grey, quality=85, progressive=True),
    "grey_progressive_restart": cv(grey, cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_PROGRESSIVE, 1,
                                   cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "colour_444": pil(rgb, quality=85, subsampling=0),
    "colour_422": pil(rgb, quality=85, subsampling=1),
    "colour_420": pil(rgb, quality=85, subsampling=2),
    "colour_420_progressive": pil(rgb, quality=60, subsampling=2, progressive=True),
}
for name, b in files.items():
    open(name + ".jpg", "wb").write(b)
    im = Image.open(io.BytesIO(b))
    im.draft("YCbCr" if im.mode == "RGB" else "L", im.size)
    print('{"%s", %d, "%s"},' % (name, len(im.getbands()), hashlib.sha256(np.asarray(im).tobytes()).hexdigest()))

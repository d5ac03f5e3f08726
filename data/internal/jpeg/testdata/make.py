#!/usr/bin/python3
"""Makes the JPEG files of this folder and prints the table of jpeg_test.go.

Made with Debian 12's python3-pil 9.4.0 and python3-opencv 4.6.0 (libjpeg-turbo
2.1.5, islow, fancy upsampling). Colour is hashed as YCbCr, before conversion.
"""
import ctypes, hashlib, io
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

# What libjpeg makes of them when it is asked for grey, and of the headers that
# grey_test.go patches in the same way.
def rgb_by_adobe(b):  # no JFIF marker, an Adobe one that says RGB
    return b[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\0" + b[20:]


def rename(b, ids):
    at, sos = b.index(b"\xff\xc0"), b.index(b"\xff\xda")
    b = bytearray(b)
    for i, c in enumerate(ids):
        b[at + 10 + 3 * i] = b[sos + 5 + 2 * i] = ord(c)
    return bytes(b)


def rgb_by_name(b):
    return rename(b[:2] + b[20:], "RGB")


def names_under_jfif(b):
    return rename(b, "RGB")


for name, b in list(files.items()) + [
    ("rgb by Adobe marker", rgb_by_adobe(files["colour_444"])),
    ("rgb by name", rgb_by_name(files["colour_444"])),
    ("names under JFIF", names_under_jfif(files["colour_444"])),
]:
    g = cv2.imdecode(np.frombuffer(b, np.uint8), 0)
    print('"%s": "%s",' % (name, hashlib.sha256(g.tobytes()).hexdigest()))

# JPEG-LS, by libcharls 2.4.1. Near-lossless is hashed as CharLS decodes it.
lib = ctypes.CDLL("libcharls.so.2")
for f in ("charls_jpegls_encoder_create", "charls_jpegls_decoder_create"):
    getattr(lib, f).restype = ctypes.c_void_p


class FrameInfo(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int32) for n in ("width", "height", "bits", "components")]


def call(name, *args):
    assert getattr(lib, name)(*args) == 0, name


def charls(a, bits, near, mode):
    e = ctypes.c_void_p(lib.charls_jpegls_encoder_create())
    out, n = ctypes.create_string_buffer(1 << 16), ctypes.c_size_t()
    info = FrameInfo(37, 29, bits, 3 if a.ndim == 3 else 1)
    planes = np.ascontiguousarray(a.transpose(2, 0, 1) if a.ndim == 3 and mode == 0 else a)
    call("charls_jpegls_encoder_set_destination_buffer", e, out, ctypes.c_size_t(len(out)))
    call("charls_jpegls_encoder_set_frame_info", e, ctypes.byref(info))
    call("charls_jpegls_encoder_set_near_lossless", e, near)
    call("charls_jpegls_encoder_set_interleave_mode", e, mode)
    call("charls_jpegls_encoder_encode_from_buffer", e, planes.tobytes(), ctypes.c_size_t(planes.nbytes), 0)
    call("charls_jpegls_encoder_get_bytes_written", e, ctypes.byref(n))
    src = out.raw[: n.value]
    d = ctypes.c_void_p(lib.charls_jpegls_decoder_create())
    pix = ctypes.create_string_buffer(planes.nbytes)
    call("charls_jpegls_decoder_set_source_buffer", d, src, ctypes.c_size_t(len(src)))
    call("charls_jpegls_decoder_read_header", d)
    call("charls_jpegls_decoder_decode_to_buffer", d, pix, ctypes.c_size_t(len(pix)), 0)
    got = np.frombuffer(pix.raw, planes.dtype).reshape(planes.shape)
    return src, got.transpose(1, 2, 0) if a.ndim == 3 and mode == 0 else got


flat = np.where(rgb > 100, 7, rgb // 64 * 64).astype(np.uint8)  # with runs
for name, a, bits, near, mode in [
    ("ls_grey", grey, 8, 0, 0),
    ("ls_grey_near3", grey, 8, 3, 0),
    ("ls_flat", flat[:, :, 0], 8, 0, 0),
    ("ls_12bits", grey.astype(np.uint16) * 16 + 5, 12, 0, 0),
    ("ls_planes", flat, 8, 0, 0),
    ("ls_line", flat, 8, 0, 1),
    ("ls_sample_near2", flat, 8, 2, 2),
]:
    src, got = charls(a, bits, near, mode)
    open(name + ".jpg", "wb").write(src)
    print('{"%s", %d, "%s"},' % (name, 3 if a.ndim == 3 else 1, hashlib.sha256(np.ascontiguousarray(got).tobytes()).hexdigest()))

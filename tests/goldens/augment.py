#!/usr/bin/env python3
"""Writes tests/goldens/augment/: what Pillow (and torchvision's use of it) makes of small images.

    pip install pillow numpy && python3 tests/goldens/augment.py

cases.txt has a line per case: operation, source image, arguments, result image. hue.txt has the CRC-32 of all 2^24
colours after a shift of the hue. decode.txt lists files for the decoders and, for the lossless ones, their pixels.
"""
import io
import os
import zlib

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "augment")
os.makedirs(OUT, exist_ok=True)
rng = np.random.default_rng(7)


def path(name):
    return os.path.join(OUT, name)


def scene(height, width, channels):
    """Smooth areas, edges, saturated patches and noise: something of all that a photograph has."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [
        127 + 120 * np.sin(x / (7 + 5 * c) + y / (11 + 3 * c) + c) * np.cos(y / 23 - c) for c in range(channels)
    ]
    image = np.stack(planes, -1)
    image[height // 3 : height // 2, width // 4 : width // 2] = [255, 0, 10][:channels]
    image[height // 2 : 2 * height // 3, width // 2 : 3 * width // 4] = [3, 80, 250][:channels]
    image[: height // 8, : width // 8] = 128
    image += rng.normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8).squeeze()


cases = []
count = 0


def case(operation, source, arguments, result):
    global count
    name = f"r{count:03d}.png"
    count += 1
    result.save(path(name), optimize=True)
    cases.append(" ".join([operation, source] + [str(a) for a in arguments] + [name]))


def adjust_hue(image, factor):
    h, s, v = image.convert("HSV").split()
    h = np.array(h, dtype=np.uint8)
    h += np.int32(factor * 255).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(h, "L"), s, v)).convert("RGB")


sources = {"rgb.png": Image.fromarray(scene(97, 131, 3)), "gray.png": Image.fromarray(scene(61, 50, 1))}
for name, image in sources.items():
    image.save(path(name), optimize=True)
    w, h = image.size
    boxes = [
        (0, 0, h, w, 28, 28, 0),
        (0, 0, h, w, h, w, 1),
        (5, 3, 28, 28, 28, 28, 0),
        (7, 2, 41, 37, 16, 23, 1),
        (h - 9, w - 5, 9, 5, 32, 19, 0),
        (3, 1, 55, 48, 3, 1, 0),
        (20, 20, 1, 1, 7, 5, 1),
        (10, 11, 33, 12, 12, 33, 0),
    ]
    for top, left, bh, bw, oh, ow, mirror in boxes:
        crop = image.crop((left, top, left + bw, top + bh)).resize((ow, oh), Image.BILINEAR)
        if mirror:
            crop = crop.transpose(Image.FLIP_LEFT_RIGHT)
        case("resize", name, (top, left, bh, bw, oh, ow, mirror), crop)
    for factor in (0.0, 0.2, 0.73, 1.0, 1.31, 1.8):
        case("brightness", name, (factor,), ImageEnhance.Brightness(image).enhance(factor))
        case("contrast", name, (factor,), ImageEnhance.Contrast(image).enhance(factor))
        if image.mode == "RGB":
            case("saturation", name, (factor,), ImageEnhance.Color(image).enhance(factor))
    if image.mode == "RGB":
        for factor in (-0.2, -0.0117, 0.0, 0.13, 0.2):
            case("hue", name, (factor,), adjust_hue(image, factor))
        case("gray", name, (), image.convert("L").convert("RGB"))
    for sigma in (0.1, 0.37, 0.8, 1.4, 1.42, 2.0, 3.3, 40.0):
        case("blur", name, (sigma,), image.filter(ImageFilter.GaussianBlur(sigma)))
for name, image in sources.items():
    for threshold in (0, 1, 77, 128, 256):
        case("solarize", name, (threshold,), ImageOps.solarize(image, threshold))
with open(path("cases.txt"), "w") as f:
    f.write("\n".join(cases) + "\n")

codes = np.arange(1 << 24, dtype=np.uint32)
every = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1).astype(np.uint8).reshape(4096, 4096, 3)
with open(path("hue.txt"), "w") as f:
    for factor in (0.0, 0.07, -0.2, 0.5):
        f.write(f"{factor} {zlib.crc32(adjust_hue(Image.fromarray(every), factor).tobytes())}\n")

# Files for the decoders: name, expected pixels (after convert("RGB")), largest and mean difference allowed.
decode = []


def encoded(name, image, largest=0, mean=0.0, **options):
    image.save(path(name), **options)
    reference = name.replace(".", "_") + "_rgb.png"
    Image.open(path(name)).convert("RGB").save(path(reference), optimize=True)
    decode.append(f"{name} {reference} {largest} {mean}")


small = Image.fromarray(scene(37, 45, 3))
gray = small.convert("L")
# Decoders of JPEG may differ by a level or so in the inverse transform and the upsampling of chroma.
encoded("base.jpg", small, 3, 0.2, quality=90)
encoded("progressive.jpg", small, 3, 0.2, quality=85, progressive=True)
encoded("full_chroma.jpg", small, 3, 0.2, quality=92, subsampling=0)
encoded("gray.jpg", gray, 3, 0.2, quality=90)
encoded("cmyk.jpg", small.convert("CMYK"), 3, 0.2, quality=90)
encoded("rgb8.png", small)
encoded("gray8.png", gray)
encoded("palette.png", small.quantize(40))
encoded("palette_transparent.png", small.quantize(13), transparency=3)
encoded("bits1.png", gray.convert("1"))
rgba = small.copy()
rgba.putalpha(gray)
encoded("rgba.png", rgba)
encoded("gray_alpha.png", rgba.convert("LA"))
encoded("lossless.webp", small, lossless=True)
encoded("lossy.webp", small, 3, 0.2, quality=80)
encoded("alpha.webp", rgba, lossless=True, exact=True)
encoded("rgb.bmp", small)
encoded("palette.bmp", small.quantize(40))
encoded("gray.bmp", gray)
encoded("rgb.ppm", small)
encoded("gray.pgm", gray)
with open(path("decode.txt"), "w") as f:
    f.write("\n".join(decode) + "\n")


def png_by_hand(name, header, rows):
    """What Pillow does not write: 16-bit colour and interlacing, by the chunk."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    with open(path(name), "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


pixels = np.array(small)
h, w, _ = pixels.shape
size = w.to_bytes(4, "big") + h.to_bytes(4, "big")
wide = (pixels.astype(np.uint16) << 8 | 77).astype(">u2")
png_by_hand("rgb16.png", size + bytes([16, 2, 0, 0, 0]), b"".join(b"\0" + row.tobytes() for row in wide))
passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
rows = b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx])
png_by_hand("interlaced.png", size + bytes([8, 2, 0, 0, 1]), rows)
with open(path("decode.txt"), "a") as f:
    f.write("rgb16.png rgb8_png_rgb.png 0 0.0\ninterlaced.png rgb8_png_rgb.png 0 0.0\n")

Image.fromarray(scene(375, 500, 3)).save(path("photo.jpg"), quality=90)

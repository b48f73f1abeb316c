#!/usr/bin/env python3
"""Writes tests/goldens/decode/: image files as people have them, most of them written by the byte here.

    pip install pillow && python3 tests/goldens/decode.py

cases.txt has a line per file: name, width, height, CRC-32 of the pixels that Pillow's convert("RGB") gives.
"""
import io
import os
import struct
import zlib

from PIL import Image

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "decode")
os.makedirs(OUT, exist_ok=True)
cases = []


def case(name, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    cases.append(f"{name} {image.width} {image.height} {zlib.crc32(image.tobytes())}")


def scene(width, height):
    """No two rows and no two columns are alike."""
    return Image.frombytes(
        "RGB", (width, height), bytes((x * 11 + y * 3 + c * 50 + x * y) % 256 for y in range(height) for x in range(width) for c in range(3))
    )


# BMP


def bmp(pixels, width, height, bits, header=40, compression=0, palette=b"", colours=0, masks=b"", offset=None):
    if header == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        head = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, 0, 2835, 2835, colours, 0)
        if header > 40:
            head += masks
            masks = b""
            head += b"\0" * (header - len(head))
    at = 14 + len(head) + len(masks) + len(palette) if offset is None else offset
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, at) + head + masks + palette + pixels


def rows(width, height, bits, salt=0):
    stride = (width * bits + 31) // 32 * 4
    used = (width * bits + 7) // 8
    return b"".join(
        bytes((x * 37 + y * 101 + x * y * 7 + salt) % 256 for x in range(used)) + b"\xee" * (stride - used) for y in range(height)
    )


palette = b"".join(bytes([i * 7 % 256, i * 13 % 256, 255 - i, 0]) for i in range(256))
core_palette = b"".join(palette[i : i + 3] for i in range(0, 1024, 4))
for bits in (1, 4, 8):
    n = 1 << bits
    case(f"palette{bits}.bmp", bmp(rows(21, 6, bits), 21, 6, bits, palette=palette[: 4 * n]))
    case(f"palette{bits}_top_down.bmp", bmp(rows(19, 5, bits), 19, -5, bits, palette=palette[: 4 * n]))
    case(f"palette{bits}_os2.bmp", bmp(rows(17, 5, bits), 17, 5, bits, header=12, palette=core_palette[: 3 * n]))
case("palette8_few_colours.bmp", bmp(rows(21, 6, 8), 21, 6, 8, palette=palette[:160], colours=40))
case("palette8_offset_of_palette.bmp", bmp(rows(21, 6, 8), 21, 6, 8, palette=palette, offset=54))
case("palette8_no_offset.bmp", bmp(rows(21, 6, 8), 21, 6, 8, palette=palette, offset=0))
case("gap_before_pixels.bmp", bmp(b"\x99" * 6 + rows(9, 4, 24), 9, 4, 24, offset=60))
case("black_and_white.bmp", bmp(rows(35, 4, 1), 35, 4, 1, palette=b"\0\0\0\0\xff\xff\xff\0"))
case("white_and_black.bmp", bmp(rows(35, 4, 1), 35, 4, 1, palette=b"\xff\xff\xff\0\0\0\0\0"))
for bits in (16, 24, 32):
    case(f"bits{bits}.bmp", bmp(rows(7, 5, bits), 7, 5, bits))
    case(f"bits{bits}_top_down.bmp", bmp(rows(7, 5, bits), 7, -5, bits))
case("bits24_os2.bmp", bmp(rows(7, 5, 24), 7, 5, 24, header=12))
case("bits24_os2_v2.bmp", bmp(rows(7, 5, 24), 7, 5, 24, header=64))
case("bits24_unpadded_tail.bmp", bmp(rows(7, 5, 24)[:-3], 7, 5, 24))
case("palette8_unpadded_tail.bmp", bmp(rows(21, 6, 8)[:-3], 21, 6, 8, palette=palette))
case("palette4_unpadded_tail.bmp", bmp(rows(3, 6, 4)[:-2], 3, 6, 4, palette=palette[:64]))
for name, bits, masks in (
    ("555", 16, (0x7C00, 0x3E0, 0x1F, 0)),
    ("565", 16, (0xF800, 0x7E0, 0x1F, 0)),
    ("bgrx", 32, (0xFF0000, 0xFF00, 0xFF, 0)),
    ("xbgr", 32, (0xFF000000, 0xFF0000, 0xFF00, 0)),
    ("rgba", 32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    ("bgra", 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    ("abgr", 32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    ("none", 32, (0, 0, 0, 0)),
):
    for header in (40, 56, 108, 124):
        if header == 40 and masks[3]:
            continue
        data = struct.pack("<4I" if header > 40 else "<3I", *masks[: 4 if header > 40 else 3])
        case(f"masks_{name}_{header}.bmp", bmp(rows(7, 5, bits), 7, 5, bits, header, 3, masks=data))

rle8 = bytes(
    [10, 7, 3, 8, 0, 0]  # a row of runs
    + [0, 13, *range(20, 33), 0, 0, 0]  # pixels as they are, padded to an even count
    + [4, 9, 0, 2, 3, 1, 2, 77, 4, 78, 0, 0]  # a jump to the right and up
    + [0, 2, 5, 0, 30, 99, 0, 0]  # a run that is longer than its row
    + [0, 10, *range(50, 60), 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]  # pixels as they are over a row's end
    + [0, 2, 1, 0, 1, 1, 11, 3, 0, 1]
)
case("rle8.bmp", bmp(rle8, 13, 7, 8, compression=1, palette=palette))
rle4 = bytes(
    [9, 0x3A, 0, 0]
    + [0, 9, 0x12, 0x34, 0x56, 0x78, 0x90, 0, 0, 0]
    + [3, 0xBC, 0, 2, 2, 0, 4, 0xDE, 0, 0]
    + [0, 5, 0x9A, 0xBC, 0xD0, 0, 4, 0x77, 0, 0]
    + [255, 0x42, 0, 1]
)
case("rle4.bmp", bmp(rle4, 9, 5, 4, compression=2, palette=palette[:64]))
case("rle8_odd_offset.bmp", bmp(b"\0" + bytes([0, 3, 9, 8, 7, 2, 1, 0, 0, 5, 4, 0, 1]), 5, 2, 8, 40, 1, palette, offset=1079))

with open(os.path.join(OUT, "cases.txt"), "w") as f:
    f.write("\n".join(cases) + "\n")

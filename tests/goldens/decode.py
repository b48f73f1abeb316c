#!/usr/bin/env python3
"""Writes tests/goldens/decode/: image files as people have them, most of them written by the byte here.

    pip install pillow && python3 tests/goldens/decode.py

cases.txt has a line per file: name, width, height, CRC-32 of the pixels that Pillow's exif_transpose() and
convert("RGB") give; 0 for JPEG, whose decoders differ by a level.
"""
import io
import os
import struct
import zlib

from PIL import Image, ImageOps

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "decode")
os.makedirs(OUT, exist_ok=True)
cases = []


def case(name, data, reference=None):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)
    image = reference or ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    checksum = 0 if "jpeg" in name or name.endswith(".jpg") else zlib.crc32(image.tobytes())
    cases.append(f"{name} {image.width} {image.height} {checksum}")


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


# GIF


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def patched(data, at, *values):
    data = bytearray(data)
    data[at : at + len(values)] = bytes(values)
    return bytes(data)


colours = scene(33, 21).quantize(60)
few = scene(21, 30).quantize(5)
gif = saved(colours, "GIF")
case("still.gif", gif)
case("interlaced.gif", saved(colours, "GIF", interlace=1))
case("interlaced_of_3_rows.gif", saved(colours.crop((0, 0, 20, 3)), "GIF", interlace=1))
case("few_colours.gif", saved(few, "GIF"))
case("gray.gif", saved(scene(17, 19).convert("L"), "GIF"))
case("transparent.gif", saved(few, "GIF", transparency=2))
case("comment.gif", saved(few, "GIF", comment=b"a comment " * 60))
frames = [Image.new("P", (30, 20), 3), few.crop((0, 0, 30, 20)), few.resize((30, 20))]
for frame in frames:
    frame.putpalette(few.getpalette())
frames[0].paste(few.crop((0, 0, 12, 9)), (5, 4))
case("animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50, disposal=2, loop=0))
case("screen_larger_than_frame.gif", patched(gif, 6, 50, 0, 40, 0))
case("screen_smaller_than_frame.gif", patched(gif, 6, 9, 0, 5, 0))
transparent = saved(few, "GIF", transparency=2)
case("transparent_on_larger_screen.gif", patched(transparent, 6, 50, 0, 40, 0))
at = gif.index(b",\0\0\0\0")
case("frame_apart_from_the_corner.gif", patched(patched(gif, 6, 60, 0, 50, 0), at + 1, 7, 0, 11, 0))
table = 3 << (gif[10] & 7) + 1
case("no_colour_map.gif", patched(gif, 10, 0)[:13] + gif[13 + table :])
local = gif[: at + 9] + bytes([gif[at + 9] | 0x80 | gif[10] & 7]) + gif[13 : 13 + table] + gif[at + 10 :]
case("local_colour_map.gif", patched(local, 10, 0)[:13] + local[13 + table :])
case("both_colour_maps.gif", patched(local, 13, *(i % 256 for i in range(table))))
short = 3 << 4
case("colours_beyond_the_map.gif", patched(gif, 10, 0x83)[: 13 + short] + gif[13 + table :])
case("no_trailer.gif", gif[:-1])

# WebP: animations, whose first frame need not be all of the canvas

small = scene(24, 18)
other = scene(24, 18).transpose(Image.Transpose.ROTATE_180)
case("animated.webp", saved(small, "WEBP", save_all=True, append_images=[other], duration=40, lossless=True))
part = Image.new("RGBA", (24, 18), (9, 8, 7, 0))
part.paste(small.crop((0, 0, 9, 7)), (6, 4))
case("animated_part.webp", saved(part, "WEBP", save_all=True, append_images=[other], duration=40, lossless=True, minimize_size=True))

# EXIF orientations


def exif(orientation, order="<", entries=(), type=3):
    fields = [*entries, struct.pack(order + "HHI", 0x112, type, 1) + struct.pack(order + ("HH" if type == 3 else "I"), *([orientation, 0] if type == 3 else [orientation]))]
    fields.append(struct.pack(order + "HHII", 0x8769, 4, 1, 26 + 12 * len(fields)))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + struct.pack(order + "H", len(fields)) + b"".join(fields) + b"\0\0\0\0" + b"\0\0\0\0\0\0"


photo = scene(45, 34)
smooth = photo.resize((9, 7), Image.Resampling.BOX).resize((45, 34), Image.Resampling.BICUBIC)
for orientation in range(1, 9):
    order = "<>"[orientation % 2]
    data = exif(orientation, order, [struct.pack(order + "HHII", 0x100, 4, 1, 45)])
    case(f"exif{orientation}.png", saved(smooth, "PNG", exif=data))
    case(f"exif{orientation}.webp", saved(smooth, "WEBP", exif=data, lossless=True))
    case(f"exif{orientation}.jpg", saved(smooth, "JPEG", exif=b"Exif\0\0" + data, quality=90))
case("strip.jpg", saved(smooth.resize((600, 32)), "JPEG", quality=90))
case("exif_gray.png", saved(photo.convert("L"), "PNG", exif=exif(6)))
case("exif_long.png", saved(photo, "PNG", exif=exif(8, ">", type=4)))
case("exif_9.png", saved(photo, "PNG", exif=exif(9)))
png = saved(photo, "PNG", exif=exif(5))
at = png.index(b"eXIf") - 4
end = at + 12 + struct.unpack(">I", png[at : at + 4])[0]
case("exif_after_pixels.png", png[:at] + png[end:-12] + png[at:end] + png[-12:])
case("exif_animated.webp", saved(small, "WEBP", save_all=True, append_images=[other], duration=40, lossless=True, exif=exif(6)))

# TIFF


def tiff(width, height, bits, samples, meaning, chunks, tile=None, planes=False, order="<", big=False, more=()):
    """By the byte: `chunks` are strips of 8 rows, or tiles. What it shows is told by an image that is no such file."""
    kinds = {1: "B", 3: "H", 4: "I", 16: "Q"}
    wide = 16 if big else 4
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    header += struct.pack(order + ("HHQ" if big else "I"), *((8, 0, 16) if big else (8,)))
    where = (324, 325) if tile else (273, 279)
    tags = {256: (3, [width]), 257: (3, [height]), 258: (3, [bits] * samples), 259: (3, [1]), 262: (3, [meaning])}
    tags |= {277: (3, [samples]), 284: (3, [2 if planes else 1]), where[1]: (wide, [len(c) for c in chunks])}
    tags |= {322: (3, [tile[0]]), 323: (3, [tile[1]])} if tile else {278: (3, [8])}
    tags[where[0]] = (wide, [0] * len(chunks))
    tags |= dict(more)
    field, inline = (20, 8) if big else (12, 4)
    at = len(header) + (8 if big else 2) + field * len(tags) + (8 if big else 4)
    for rounds in range(2):  # the first finds where the chunks lie
        entries, values = b"", b""
        for tag, (kind, numbers) in sorted(tags.items()):
            data = struct.pack(f"{order}{len(numbers)}{kinds[kind]}", *numbers)
            entries += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(numbers))
            if len(data) <= inline:
                entries += data.ljust(inline, b"\0")
            else:
                entries += struct.pack(order + ("Q" if big else "I"), at + len(values))
                values += data + b"\0" * (len(data) % 2)
        offsets = [at + len(values) + sum(len(c) for c in chunks[:i]) for i in range(len(chunks))]
        tags[where[0]] = (wide, offsets)
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    return header + count + entries + b"\0" * (8 if big else 4) + values + b"".join(chunks)


def strips(data, row):
    return [data[i : i + 8 * row] for i in range(0, len(data), 8 * row)]


def tiles(image, width, height):
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            yield image.crop((left, top, left + width, top + height)).tobytes()


def sixteen(pixels, order="<"):
    return b"".join(struct.pack(order + "H", v << 8 | 255 - v) for v in pixels)


gray = photo.convert("L")
for name, image, options in (
    ("gray", gray, {}),
    ("rgb", photo, {}),
    ("rgba", Image.merge("RGBA", (*photo.split(), gray)), {}),
    ("gray_alpha", Image.merge("LA", (gray, gray)), {}),
    ("palette", photo.quantize(60), {}),
    ("bits1", gray.convert("1"), {}),
    ("group4", gray.convert("1"), {"compression": "group4"}),
    ("packbits", photo, {"compression": "packbits"}),
    ("lzw", photo, {"compression": "tiff_lzw"}),
    ("lzw_predictor", photo, {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
    ("deflate", gray, {"compression": "tiff_adobe_deflate"}),
    ("jpeg", smooth, {"compression": "jpeg"}),
    ("jpeg_gray", smooth.convert("L"), {"compression": "jpeg"}),
    ("pages", photo, {"save_all": True, "append_images": [other]}),
):
    case(f"{name}.tif", saved(image, "TIFF", **options))
for orientation in range(2, 9):
    case(f"orientation{orientation}.tif", saved(gray, "TIFF", tiffinfo={274: orientation}))
shown = gray.convert("RGB")
inverse = ImageOps.invert(gray)
case("white_is_zero.tif", tiff(45, 34, 8, 1, 0, strips(inverse.tobytes(), 45)), shown)
for order, name in (("<", "little"), (">", "big")):
    case(f"gray16_{name}.tif", tiff(45, 34, 16, 1, 1, strips(sixteen(gray.tobytes(), order), 90), order=order), shown)
    case(f"rgb16_{name}.tif", tiff(45, 34, 16, 3, 2, strips(sixteen(photo.tobytes(), order), 270), order=order), photo)
case("gray16_white_is_zero.tif", tiff(45, 34, 16, 1, 0, strips(sixteen(inverse.tobytes()), 90)), shown)
five = photo.tobytes()
five = b"".join(five[i : i + 3] + b"\x77\x99" for i in range(0, len(five), 3))
case("rgb_of_five.tif", tiff(45, 34, 8, 5, 2, strips(five, 225), more={338: (3, [0, 0])}.items()), photo)
planes = [strip for plane in photo.split() for strip in strips(plane.tobytes(), 45)]
case("planes.tif", tiff(45, 34, 8, 3, 2, planes, planes=True), photo)
case("tiles.tif", tiff(45, 34, 8, 3, 2, [*tiles(photo, 16, 32)], tile=(16, 32)), photo)
case("large_tile.tif", tiff(45, 34, 8, 1, 1, [*tiles(gray, 64, 48)], tile=(64, 48)), shown)
case("tiles_of_planes.tif", tiff(45, 34, 8, 3, 2, [t for p in photo.split() for t in tiles(p, 32, 16)], tile=(32, 16), planes=True), photo)
with_alpha = [gray, inverse]
case("gray_alpha_planes.tif", tiff(45, 34, 8, 2, 1, [s for p in with_alpha for s in strips(p.tobytes(), 45)], planes=True), shown)
case("gray16_alpha_tiles.tif", tiff(45, 34, 16, 2, 1, [sixteen(t) for p in with_alpha for t in tiles(p, 32, 16)], tile=(32, 16), planes=True), shown)
case("bigtiff.tif", tiff(45, 34, 8, 3, 2, strips(photo.tobytes(), 135), big=True), photo)
for bits in (2, 4):
    levels = [[(x + y) % (1 << bits) for x in range(21)] for y in range(12)]
    packed = [r + [0] * (-len(r) % (8 // bits)) for r in levels]
    packed = b"".join(bytes(sum(v << 8 - bits * (k + 1) for k, v in enumerate(r[i : i + 8 // bits])) for i in range(0, len(r), 8 // bits)) for r in packed)
    of_levels = Image.frombytes("L", (21, 12), bytes(v * 255 // ((1 << bits) - 1) for r in levels for v in r)).convert("RGB")
    case(f"bits{bits}.tif", tiff(21, 12, bits, 1, 1, strips(packed, (21 * bits + 7) // 8)), of_levels)

with open(os.path.join(OUT, "cases.txt"), "w") as f:
    f.write("\n".join(cases) + "\n")

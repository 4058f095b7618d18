#!/usr/bin/env python3
"""Writes the image goldens of crates/data: small files of every kind, and what Pillow and transformers make of them.

Usage: python3 scripts/export_image_goldens.py [OUTPUT]   (needs Pillow 13 and transformers 4.57; default crates/data/tests/goldens)

- `images/*` with `images.json` (width, height) and `images.bin`: `ImageOps.exif_transpose(Image.open(f)).convert("RGB")`, in the order of
  `images.json`;
- `resize.json` and `resize.bin`: `Image.resize` of one of the images, for every filter;
- `pixels.json` and `pixels.bin`: configurations as `preprocessor_config.json` has them, and the f32 `pixel_values` of the slow processors.
"""

import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin
from transformers import BitImageProcessor, BlipImageProcessor, CLIPImageProcessor, SiglipImageProcessor

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 19, 14
DICE = np.random.default_rng(20240613)


def picture(width=WIDTH, height=HEIGHT, channels=3):
    """Waves, a slope, an edge and noise: what shows rounding, chroma upsampling and clipping."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(x / 4 + y / 6), 127 + 100 * np.cos(x / 3 - y / 5), (x * 13 + y * 17) % 256, (x * 23 + y * 11) % 256]
    values = np.stack(waves, -1) + DICE.normal(0, 12, (height, width, 4))
    values[height // 3 : height // 2, width // 4 : width // 2] = [255, 0, 40, 128]
    return np.clip(values, 0, 255).astype(np.uint8)[..., :channels]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, samples, depth, color, extra=b"", width=None):
    """PNG files that Pillow reads but does not write: 16-bit colour, 2 and 4 bits of grey, transparent levels."""
    height, columns = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width or columns, height, depth, color, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def orientation(value):
    exif = Image.Exif()
    exif[0x112] = value
    return exif


def write_images(folder):
    rgb = Image.fromarray(picture())
    rgba = Image.fromarray(picture(channels=4), "RGBA")
    cmyk = Image.fromarray(picture(channels=4), "CMYK")
    grey, bits, palette = rgb.convert("L"), rgb.convert("1"), rgb.quantize(20)
    deep = Image.fromarray(DICE.integers(0, 700, (HEIGHT, WIDTH)).astype(np.uint16))
    for name, image in (("rgb", rgb), ("rgba", rgba), ("la", rgba.convert("LA")), ("grey", grey), ("bits", bits), ("palette", palette), ("grey16", deep)):
        image.save(folder / f"{name}.png")
    palette.save(folder / "palette-transparent.png", transparency=3)
    rgba.quantize(30).save(folder / "palette-alpha.png")
    rgb.quantize(4).save(folder / "palette-2bit.png", bits=2)
    for name, channels, color in (("rgb16", 3, 2), ("la16", 2, 4), ("rgba16", 4, 6)):
        png(folder / f"{name}.png", DICE.integers(0, 65536, (5, 7, channels)).astype(">u2"), 16, color)
    png(folder / "grey16-transparent.png", DICE.integers(0, 400, (5, 7, 1)).astype(">u2"), 16, 0, chunk(b"tRNS", b"\1\2"))
    png(folder / "grey-transparent.png", DICE.integers(0, 256, (5, 7, 1)).astype("u1"), 8, 0, chunk(b"tRNS", b"\0\2"))
    png(folder / "grey-2bit.png", DICE.integers(0, 256, (5, 2)).astype("u1"), 2, 0, width=7)
    png(folder / "grey-4bit.png", DICE.integers(0, 256, (5, 4)).astype("u1"), 4, 0, width=7)
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta><rdf tiff:Orientation="8"/></x:xmpmeta>'
    png(folder / "xmp-8.png", DICE.integers(0, 256, (5, 7, 1)).astype("u1"), 8, 0, chunk(b"iTXt", xmp))
    rgb.save(folder / "exif-6.png", exif=orientation(6))

    for value in range(1, 9):
        rgb.save(folder / f"exif-{value}.jpg", quality=60, exif=orientation(value))
    for name, options in (("444", {"subsampling": 0}), ("422", {"subsampling": 1}), ("420", {"subsampling": 2}), ("411", {"subsampling": "4:1:1"})):
        rgb.save(folder / f"{name}.jpg", quality=85, **options)
    rgb.save(folder / "progressive.jpg", progressive=True)
    rgb.save(folder / "restarts.jpg", restart_marker_blocks=1)
    rgb.save(folder / "rgb.jpg", keep_rgb=True)
    grey.save(folder / "grey.jpg")
    cmyk.save(folder / "cmyk.jpg", quality=90)

    rgb.save(folder / "plain.gif")
    palette.save(folder / "transparent.gif", transparency=2)
    grey.save(folder / "grey.gif")
    grey.resize((20, 16)).save(folder / "interlaced.gif", interlace=1)
    # A frame that does not fill its canvas, with and without a transparent index, and one larger than its canvas.
    for source, target, canvas in (("transparent", "small-frame-transparent", (25, 17)), ("plain", "small-frame", (25, 17)), ("plain", "large-frame", (8, 9))):
        data = bytearray((folder / f"{source}.gif").read_bytes())
        data[6:10] = struct.pack("<HH", *canvas)
        (folder / f"{target}.gif").write_bytes(data)
    frames = [Image.fromarray(picture(channels=4), "RGBA") for _ in range(3)]
    for name, options in (("animated.gif", {}), ("animated.png", {}), ("animated-default.png", {"default_image": True}), ("animated.webp", {"lossless": True})):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=50, **options)

    rgb.save(folder / "lossy.webp", quality=60)
    rgb.save(folder / "lossless.webp", lossless=True)
    rgba.save(folder / "lossy-alpha.webp", quality=60)
    rgba.save(folder / "lossless-alpha.webp", lossless=True, exact=True)
    rgb.save(folder / "exif-5.webp", lossless=True, exif=orientation(5))

    for name, image in (("rgb", rgb), ("rgba", rgba), ("grey", grey), ("bits", bits), ("palette", palette)):
        image.save(folder / f"{name}.bmp")

    real = Image.fromarray((DICE.random((5, 7)) * 400 - 50).astype(np.float32))
    whole = Image.fromarray(DICE.integers(-50, 400, (5, 7)).astype(np.int32))
    for name, image in (("rgb", rgb), ("rgba", rgba), ("grey", grey), ("la", rgba.convert("LA")), ("bits", bits), ("cmyk", cmyk), ("grey16", deep), ("real", real), ("whole", whole)):
        image.save(folder / f"{name}.tif")
    rgb.save(folder / "lzw.tif", compression="tiff_lzw")
    palette.save(folder / "palette.tif", compression="packbits")
    rgb.quantize(4).save(folder / "palette-deflate.tif", compression="tiff_adobe_deflate")
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory[274] = 6
    rgb.save(folder / "orientation-6.tif", tiffinfo=directory)


def opened(path):
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def export_images(output):
    folder = output / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    write_images(folder)
    sizes, pixels = {}, b""
    for path in sorted(folder.iterdir()):
        image = opened(path)
        sizes[path.name] = image.size
        pixels += image.tobytes()
    (output / "images.json").write_text(json.dumps(sizes, indent=1) + "\n")
    (output / "images.bin").write_bytes(pixels)


def export_resize(output):
    source = output / "images" / "rgb.png"
    cases, pixels = [], b""
    for size in ((1, 1), (13, 9), (40, 7), (7, 40), (31, 27), (19, 5), (11, 14), (3, 90), (18, 11), (18, 12)):
        for resample in range(6):
            cases.append({"size": size, "resample": resample})
            pixels += opened(source).resize(size, resample).tobytes()
    (output / "resize.json").write_text(json.dumps(cases) + "\n")
    (output / "resize.bin").write_bytes(pixels)


CONFIGURATIONS = [
    {"image_processor_type": "BlipImageProcessor", "size": {"height": 12, "width": 10}, "resample": 3},
    {"size": 9, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25], "resample": 2},
    {"image_processor_type": "BlipImageProcessor", "size": [7, 9], "do_normalize": False},
    {"image_processor_type": "BlipImageProcessor", "size": {"height": 8, "width": 8}, "do_rescale": False, "image_mean": 100.0, "image_std": 50.0},
    {"image_processor_type": "BlipImageProcessor", "size": {"height": 8, "width": 6}, "rescale_factor": 0.0078, "resample": 1, "do_center_crop": True},
    {"image_processor_type": "BlipImageProcessor", "size": {"height": 14, "width": 19}, "do_resize": False},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 11}, "crop_size": {"height": 9, "width": 10}},
    {"feature_extractor_type": "CLIPFeatureExtractor", "size": 8, "crop_size": 9, "do_convert_rgb": None},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 6}, "crop_size": {"height": 13, "width": 5}, "resample": 2},
    {"image_processor_type": "CLIPImageProcessor", "size": {"height": 8, "width": 9}, "do_center_crop": False},
    {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "crop_size": {"height": 17, "width": 22}},
    {"image_processor_type": "SiglipImageProcessor", "size": {"height": 9, "width": 11}},
    {"image_processor_type": "SiglipImageProcessor", "size": {"height": 12, "width": 7}, "resample": 2, "image_mean": [0.4, 0.5, 0.6]},
    {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 12}, "crop_size": {"height": 10, "width": 9},
     "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
]
CLASSES = {"CLIP": CLIPImageProcessor, "Siglip": SiglipImageProcessor, "Bit": BitImageProcessor}


def export_pixels(output):
    image = opened(output / "images" / "rgb.png")
    cases, values = [], b""
    for configuration in CONFIGURATIONS:
        kind = configuration.get("image_processor_type") or configuration.get("feature_extractor_type") or "Blip"
        known = next((own for name, own in CLASSES.items() if kind.startswith(name)), BlipImageProcessor)
        processor = known.from_dict(dict(configuration))
        pixels = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
        cases.append({"configuration": configuration, "shape": pixels.shape})
        values += pixels.astype("<f4").tobytes()
    (output / "pixels.json").write_text(json.dumps(cases, indent=1) + "\n")
    (output / "pixels.bin").write_bytes(values)


def main():
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "crates/data/tests/goldens"
    output.mkdir(parents=True, exist_ok=True)
    export_images(output)
    export_resize(output)
    export_pixels(output)


if __name__ == "__main__":
    main()

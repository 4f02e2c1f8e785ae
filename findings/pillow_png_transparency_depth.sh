#!/usr/bin/env bash
# Pillow 13.0.0 scales the pixels of 2-, 4- and 16-bit PNGs to 8 bits but not the transparent colour that they name (tRNS).
#
# Why it matters: convert("RGBA") then compares values of two scales. The see-through background of a 2- or 4-bit picture comes out
# opaque, and in a 16-bit RGB picture a colour that the file calls opaque vanishes. No message.
# Expected: PNG specification 1.2 (ancillary chunks, tRNS) gives the colour at the picture's own bit depth and says that both bytes of
# a 16-bit sample are to be compared before the lower one is dropped. pypng does. Pillow does at 1 bit, where it turns 1 into 255.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "pillow==13.0.0" "pypng==0.20220715.0"
cd "$d"
"$d/venv/bin/python" - <<'PY'
import struct
import zlib
from importlib.metadata import version

import png
from PIL import Image

print("Pillow", version("pillow"), "pypng", version("pypng"))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def alphas(width, depth, colour, row, transparent):
    """The opacity of each pixel of a picture of one row, as pypng and as Pillow read it (True is opaque)."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*p) for p in parts)
    with open("x.png", "wb") as f:
        f.write(data)
    right = list(list(png.Reader(bytes=data).asRGBA()[2])[0][3::4])
    with Image.open("x.png") as picture:
        seen = list(picture.convert("RGBA").getchannel("A").tobytes())
    return [a > 0 for a in right], [a > 0 for a in seen]


cases = {  # name: (width, bits, colour type, row, transparent colour), and what Pillow gives
    "1 bit, 0 1, transparent 1": ((2, 1, 0, b"\x40", struct.pack(">H", 1)), [True, False]),
    "2 bits, 0 1 2 3, transparent 1": ((4, 2, 0, b"\x1b", struct.pack(">H", 1)), [True] * 4),
    "4 bits, 1 15, transparent 15": ((2, 4, 0, b"\x1f", struct.pack(">H", 15)), [True] * 2),
    "8 bits, 1 15, transparent 15": ((2, 8, 0, b"\x01\x0f", struct.pack(">H", 15)), [True, False]),
    "16 bits grey, 1 258, transparent 258": ((2, 16, 0, struct.pack(">2H", 1, 258), struct.pack(">H", 258)), [True] * 2),
    "16 bits RGB, 1 300, transparent 1": ((2, 16, 2, struct.pack(">6H", 1, 1, 1, 300, 300, 300), struct.pack(">3H", 1, 1, 1)), [True, False]),
}
for name, (case, found) in cases.items():
    right, seen = alphas(*case)
    print(f"{name:38} opaque: pypng {right} Pillow {seen}")
    assert seen == found, (name, seen)
    assert (seen == right) == name.startswith(("1 bit,", "8 bits")), name
print("as found: right at 1 and 8 bits, wrong at 2, 4 and 16")
PY

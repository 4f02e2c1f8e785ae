#!/usr/bin/env bash
# Pillow 13.0.0 turns a grey "WhiteIsZero" TIFF round at 8 bits and leaves it as stored at 16.
#
# Why it matters: the same scan, saved once at 8 and once at 16 bits, comes back as a picture and its negative. No message,
# the mode names the depth alone, and a classifier answers for the negative.
# Expected: one meaning at both depths. TIFF 6.0 (section 8, PhotometricInterpretation) says of WhiteIsZero, for grey pictures, that
# 0 is white and the largest value black, whatever the depth. tifffile keeps the stored values at both depths and names the tag.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "pillow==13.0.0" "tifffile==2026.3.3" "numpy==2.4.6"
cd "$d"
"$d/venv/bin/python" - <<'PY'
import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__, "tifffile", tifffile.__version__, "numpy", np.__version__)
# Each row runs from the value shown as white (0) to the value shown as black.
stored = {
    "uint8": np.array([[0, 64, 128, 255]], np.uint8),
    "uint16": np.array([[0, 16384, 32768, 65535]], np.uint16),
}
turned = {}
for name, values in stored.items():
    read = {}
    for photometric in ("minisblack", "miniswhite"):
        tifffile.imwrite("x.tif", values, photometric=photometric, byteorder="<")
        assert tifffile.TiffFile("x.tif").pages[0].photometric.name == photometric.upper()
        assert (tifffile.imread("x.tif") == values).all()
        with Image.open("x.tif") as picture:
            read[photometric] = np.asarray(picture)
            mode = picture.mode
    turned[name] = bool((read["minisblack"] != read["miniswhite"]).any())
    print(f"{name:8} mode {mode:5} BlackIsZero {read['minisblack'].tolist()} WhiteIsZero {read['miniswhite'].tolist()}")
    assert (read["minisblack"] == values).all()
    assert (read["miniswhite"] == (255 - values if name == "uint8" else values)).all()

assert turned == {"uint8": True, "uint16": False}, turned
print("as found: 8 bits are turned round, 16 bits are not")
PY

#!/usr/bin/env bash
# Pillow 13.0.0 swaps the bytes of signed and float pixels in a compressed big-endian TIFF: 1.0 is read as 4.6e-41.
#
# Why it matters: there is no error or warning. Elevation, microscopy and medical pictures are kept as int16 or float32, and
# what comes out is noise of the right shape and type. The same pixels uncompressed, or little-endian, are read right.
# Expected: the compression does not change what the values are. TIFF 6.0 (section 2, image file header) says that the first two bytes
# ("MM") give the byte order within the file; tifffile reads all of these files alike.
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
from PIL import Image, features

print("Pillow", PIL.__version__, "libtiff", features.version("libtiff"), "tifffile", tifffile.__version__)
stored = {
    "uint16": np.array([[0, 1, 258, 40000]], np.uint16),
    "int16": np.array([[0, 1, 258, -1000]], np.int16),
    "int32": np.array([[0, 1, 258, -40000]], np.int32),
    "float32": np.array([[0.0, 0.25, 0.5, 1.0]], np.float32),
}
wrong = []
for name, values in stored.items():
    for order in "<>":
        for compression in (None, "zlib"):
            tifffile.imwrite("x.tif", values, photometric="minisblack", byteorder=order, compression=compression)
            assert (tifffile.imread("x.tif") == values).all()
            with Image.open("x.tif") as picture:
                read = np.asarray(picture)
            right = bool((read == values).all())
            print(f"{name:8} {order} {compression or 'none':5} {'right' if right else 'WRONG'} {read.ravel().tolist()}")
            if not right:
                wrong.append((name, order, compression))
                assert (read == values.byteswap()).all(), "not the stored values with their bytes swapped"

assert wrong == [(name, ">", "zlib") for name in ("int16", "int32", "float32")], wrong
print("as found: signed and float pixels are swapped where the file is both big-endian and compressed")
PY

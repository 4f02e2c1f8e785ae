#!/usr/bin/env bash
# datumaro 1.13.12: a box that was turned in CVAT is left out of VOC, COCO and YOLO exports without a word; its picture stays.
#
# Why it matters: a picture whose only object was turned becomes a picture without objects. A detector learns it as background,
# and a count of objects, or of maps that fall on their object, is made without it.
# Expected: at least a warning that an annotation was left out, as the YOLO exporter of this version gives for crowd regions; or the
# upright box around it, which RotatedBbox.get_bbox works out ("the bounding box coordinates and dimensions", its docstring).
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "datumaro==1.13.12" "pillow==12.3.0"
cd "$d"
mkdir source
cat >source/ann.xml <<'XML'
<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><labels><label><name>car</name><attributes></attributes></label></labels></task></meta>
<image id="0" name="upright.png" width="80" height="60"><box label="car" occluded="0" xtl="10" ytl="20" xbr="40" ybr="30" z_order="0"/></image>
<image id="1" name="turned.png" width="80" height="60"><box label="car" occluded="0" xtl="10" ytl="20" xbr="40" ybr="30" rotation="30" z_order="0"/></image>
</annotations>
XML
"$d/venv/bin/python" - <<'PY'
import logging
import pathlib
from importlib.metadata import version

from datumaro import Dataset
from PIL import Image

print("datumaro", version("datumaro"))
pathlib.Path("source/images").mkdir()
for name in ("upright", "turned"):
    Image.new("RGB", (80, 60)).save(f"source/images/{name}.png")
source = Dataset.import_from("source", "cvat")
kinds = {item.id: [type(a).__name__ for a in item.annotations] for item in source}
print("read from CVAT:", kinds)
assert kinds == {"upright": ["Bbox"], "turned": ["RotatedBbox"]}
box = next(a for item in source for a in item.annotations if item.id == "turned").get_bbox()
print("upright box around the turned one:", [round(v, 2) for v in box])

said = []


class Keep(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


logging.getLogger().addHandler(Keep(logging.WARNING))
logging.captureWarnings(True)
files = {"voc": "Annotations/*.xml", "coco": "annotations/instances*.json", "yolo": "obj_*_data/*.txt"}
for form, pattern in files.items():
    source.export(form, form, save_media=True)
    text = "".join(p.read_text() for p in sorted(pathlib.Path(form).rglob(pattern)))
    found = {"voc": text.count("<object>"), "coco": text.count('"bbox"'), "yolo": len(text.split()) // 5}[form]
    print(f"{form:5} objects written: {found} of 2, warnings: {said}")
    assert (found, said) == (1, []), (form, found, said)
print("as found")
PY

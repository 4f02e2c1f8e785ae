#!/usr/bin/env bash
# label-studio-sdk 2.1.2: JSON-MIN and CSV drop `item_index`, so nobody can tell on which picture of a task a box was drawn.
#
# Why it matters: `<Image valueList="$pages"/>` shows several pictures in one task. Boxes drawn on page 2 come out as if they stood on
# page 1; whoever reads the export scores a classifier's maps against boxes of another picture. No message.
# Expected: the export keeps what says where a result belongs. The SDK's own description of JSON-MIN (Converter._FORMAT_INFO) promises
# the "from_name" and "to_name" values; `to_name` is not written either. Full JSON has both.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "label-studio-sdk==2.1.2"
cd "$d"
"$d/venv/bin/python" - <<'PY'
import copy
import json
import pathlib
from importlib.metadata import version

from label_studio_sdk.converter import Converter

print("label-studio-sdk", version("label-studio-sdk"))
config = """<View><Image name="page" valueList="$pages"/>
<RectangleLabels name="box" toName="page"><Label value="car"/></RectangleLabels></View>"""
value = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["car"]}
result = {"id": "r", "type": "rectanglelabels", "from_name": "box", "to_name": "page", "item_index": 0,
          "original_width": 100, "original_height": 50, "image_rotation": 0, "value": value}  # fmt: skip


def export(page, form):
    """What the export holds for one box on that page of the task."""
    drawn = copy.deepcopy(result) | {"item_index": page}
    task = {"id": 1, "data": {"pages": ["a.png", "b.png"]}, "annotations": [{"id": 7, "result": [drawn]}]}
    pathlib.Path("tasks.json").write_text(json.dumps([task]))
    folder = pathlib.Path(f"{form}-{page}")
    Converter(config, str(folder), download_resources=False).convert("tasks.json", str(folder), form, is_dir=False)
    return next(folder.iterdir()).read_text()


print(Converter._FORMAT_INFO[next(f for f in Converter._FORMAT_INFO if f.name == "JSON_MIN")]["description"])
for form in ("JSON_MIN", "CSV"):
    first, second = export(0, form), export(1, form)
    print(form, "of a box on page 1 equals that of the same box on page 2:", first == second)
    assert first == second and "a.png" in first and "b.png" in first
    assert "item_index" not in first and "to_name" not in first
    if form == "JSON_MIN":
        print(json.dumps(json.loads(first)[0]["box"]))
print("as found")
PY

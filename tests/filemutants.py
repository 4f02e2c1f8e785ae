"""Damaged files, and what reading them comes to: ``python tests/filemutants.py pictures|runs SEED COUNT FOLDER``.

Writes a line of JSON for every fault: anything but a picture, a model or a refusal; what disagrees; what takes longer
than 10 seconds or more than 2 GB.  It is a process of its own, so that a crash and the memory are seen.
"""

import copy
import io
import json
import random
import re
import resource
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import clearsight as cs
from clearsight.data.datasets import folder as open_folder
from clearsight.data.images import open_mask, open_picture, picture_size
from clearsight.errors import Refused
from clearsight.models.model_folder import train_pictures
from clearsight.reporting.report import Report

LONGEST, MOST = 10.0, 2**21  # seconds, and kilobytes of this process
SUFFIXES = (".jpg", ".png", ".gif", ".webp", ".tif", ".bmp", ".ppm", ".avif", ".jp2")


def whole_pictures() -> dict[str, bytes]:
    """A small picture in every form that is read."""
    colours = np.random.default_rng(0).integers(0, 256, (18, 25, 3), dtype=np.uint8)
    colours[:9] = np.linspace(0, 255, 25)[None, :, None]
    rgb = Image.fromarray(colours)
    grey, deep = rgb.convert("L"), Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    clear = rgb.convert("RGBA")
    clear.putalpha(grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    ways: list[tuple[str, Image.Image, str, dict[str, object]]] = [
        ("jpeg", rgb, "JPEG", {"exif": exif}),
        ("progressive", rgb, "JPEG", {"progressive": True, "quality": 90}),
        ("cmyk", rgb.convert("CMYK"), "JPEG", {}),
        ("mpo", rgb, "MPO", {"save_all": True, "append_images": [rgb]}),
        ("png", rgb, "PNG", {"exif": exif}),
        ("png-clear", clear, "PNG", {}),
        ("png-palette", rgb.convert("P"), "PNG", {"transparency": 3}),
        ("png-16", deep, "PNG", {}),
        ("png-1", grey.convert("1"), "PNG", {}),
        ("apng", rgb, "PNG", {"save_all": True, "append_images": [Image.new("RGB", rgb.size)]}),
        ("gif", rgb.convert("P"), "GIF", {"save_all": True, "append_images": [Image.new("P", rgb.size)]}),
        ("webp", rgb, "WEBP", {"exif": exif}),
        ("webp-lossless", clear, "WEBP", {"lossless": True}),
        ("webp-frames", rgb, "WEBP", {"save_all": True, "append_images": [Image.new("RGB", rgb.size)]}),
        ("tiff", rgb, "TIFF", {"exif": exif}),
        ("tiff-lzw", rgb, "TIFF", {"compression": "tiff_lzw"}),
        ("tiff-deflate", clear, "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("tiff-jpeg", rgb, "TIFF", {"compression": "jpeg"}),
        ("tiff-fax", grey.convert("1"), "TIFF", {"compression": "group4"}),
        ("tiff-16", deep, "TIFF", {}),
        ("tiff-float", Image.fromarray(np.asarray(grey).astype(np.float32) / 255), "TIFF", {}),
        ("tiff-palette", rgb.convert("P"), "TIFF", {}),
        ("tiff-pages", rgb, "TIFF", {"save_all": True, "append_images": [grey]}),
        ("bmp", rgb, "BMP", {}),
        ("bmp-palette", rgb.convert("P"), "BMP", {}),
        ("ppm", rgb, "PPM", {}),
        ("pgm-16", deep, "PPM", {}),
        ("pfm", Image.fromarray(np.asarray(grey).astype(np.float32) / 255), "PPM", {}),
        ("avif", rgb, "AVIF", {"exif": exif}),
        ("jp2", rgb, "JPEG2000", {}),
        ("jp2-16", deep, "JPEG2000", {}),
        ("j2k", rgb, "JPEG2000", {"no_jp2": True}),
    ]
    Image.init()
    found = {}
    for name, image, form, options in ways:
        if form in Image.SAVE:
            file = io.BytesIO()
            image.save(file, format=form, **options)
            found[name] = file.getvalue()
    found["pgm-12"] = b"P5 5 4 4095\n" + (np.arange(20) * 200).astype(">u2").tobytes()
    found["plain"] = b"P3 # remark\n3 2 1023\n" + b" ".join(str(k * 60).encode() for k in range(18)) + b"\n"
    return found


def _places(data: bytes, r: random.Random) -> int:
    """A place in a file: more often near the beginning, where it says what it is."""
    return min(r.randrange(len(data)), r.randrange(len(data))) if r.random() < 0.7 else r.randrange(min(64, len(data)))


def cut(data: bytes, other: bytes, r: random.Random) -> bytes:
    return data[: r.choice([_places(data, r), r.randrange(len(data)), len(data) - 1 - r.randrange(min(9, len(data)))])]


def beheaded(data: bytes, other: bytes, r: random.Random) -> bytes:
    return data[1 + r.randrange(min(40, len(data) - 1)) :]


def flipped(data: bytes, other: bytes, r: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(r.choice([1, 1, 1, 2, 8])):
        out[_places(data, r)] ^= 1 << r.randrange(8)
    return bytes(out)


def overwritten(data: bytes, other: bytes, r: random.Random) -> bytes:
    at, long = _places(data, r), r.choice([1, 1, 2, 4, 16, 100])
    fill = r.choice([b"\0", b"\xff", b"\x7f", b"\x80", b"\x01", r.randbytes(1)]) * long
    return (data[:at] + fill + data[at + long :])[: len(data)]


def lengthened(data: bytes, other: bytes, r: random.Random) -> bytes:
    """A number of 2 or 4 bytes becomes one more, one less, nothing, or half as much again."""
    size, order = r.choice([2, 4]), r.choice("<>")
    at = min(_places(data, r), len(data) - size)
    form = order + ("H" if size == 2 else "I")
    value = struct.unpack_from(form, data, at)[0]
    value = min(r.choice([value + 1, max(value - 1, 0), 0, value * 3 // 2, 2 ** (8 * size) - 1]), 2 ** (8 * size) - 1)
    return data[:at] + struct.pack(form, value) + data[at + size :]


def removed(data: bytes, other: bytes, r: random.Random) -> bytes:
    at = _places(data, r)
    return data[:at] + data[at + r.choice([1, 2, 4, 12, 50]) :]


def doubled(data: bytes, other: bytes, r: random.Random) -> bytes:
    at, long = _places(data, r), r.choice([1, 4, 12, 40, 200])
    return data[: at + long] + data[at : at + long] + data[at + long :]


def swapped(data: bytes, other: bytes, r: random.Random) -> bytes:
    long = r.choice([2, 4, 12, 30])
    a, b = sorted(r.randrange(max(1, len(data) - long)) for _ in range(2))
    if b < a + long:
        return data[::-1]
    return data[:a] + data[b : b + long] + data[a + long : b] + data[a : a + long] + data[b + long :]


def two_heads(data: bytes, other: bytes, r: random.Random) -> bytes:
    return data[: r.choice([4, 8, 16, 30, len(data)])] + r.choice([data, other])


def half_and_half(data: bytes, other: bytes, r: random.Random) -> bytes:
    at = _places(data, r)
    return data[:at] + other[min(at, len(other)) :]


def untouched(data: bytes, other: bytes, r: random.Random) -> bytes:
    """Only the name is wrong."""
    return data


BYTES: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    cut, cut, beheaded, flipped, flipped, overwritten, lengthened, lengthened, removed, doubled, swapped, two_heads,
    half_and_half, untouched,
)  # fmt: skip


def harmless(data: bytes) -> bool:
    """Whether a damaged file does not happen to declare more than a million pixels: those are tested by themselves."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.width * image.height <= 1e6
    except Exception:
        return True


def mutants(seed: int, count: int, whole: dict[str, bytes]) -> Iterator[tuple[str, str, bytes]]:
    """(what was done, the file it was done to, the bytes); every file and every way in turn, the rest by the seed."""
    r, names = random.Random(seed), sorted(whole)
    made = 0
    while made < count:
        name, way = names[made % len(names)], BYTES[(made // len(names) + made) % len(BYTES)]
        data = way(whole[name], whole[r.choice(names)], r)
        if harmless(data):
            made += 1
            yield way.__name__, name, data


def tried(read: Callable[[Path], object], path: Path) -> tuple[object, str, str]:
    """(what it gave, why it was refused, what else went wrong)."""
    began = time.monotonic()
    try:
        found, refused, fault = read(path), "", ""
    except Refused as e:
        found, refused, fault = None, str(e) or "refused without a word", ""
    except BaseException:
        found, refused, fault = None, "", traceback.format_exc()[-700:]
    if time.monotonic() - began > LONGEST:
        fault = f"{time.monotonic() - began:.0f} seconds"
    if "\n" in refused or "Traceback" in refused:
        fault = f"a refusal of several lines: {refused}"
    return found, refused, fault


def picture_faults(path: Path, name: str, before: dict[str, np.ndarray]) -> Iterator[str]:
    image, _, fault = tried(open_picture, path)
    size, _, wrong = tried(picture_size, path)
    mask, _, other = tried(open_mask, path)
    yield from (f for f in (fault, wrong, other) if f)
    if image is not None and size is None:
        yield "a picture without a size"
    if isinstance(image, Image.Image):
        if size is not None and image.size != size:
            yield f"{image.size} pixels, but {size} said"
        if image.mode not in ("L", "RGB"):
            yield f"mode {image.mode}"
        if isinstance(mask, np.ndarray) and mask.shape != image.size[::-1]:
            yield f"a mask of {mask.shape}"
        if name.startswith("png") and not np.array_equal(np.asarray(image), before[name]):
            yield "other pixels, though PNG has checksums"  # apng: frames may be taken away without a trace


def pictures(seed: int, count: int, folder: Path) -> Iterator[tuple[str, str]]:
    r, whole = random.Random(seed), whole_pictures()
    before, read, names = {}, 0, []
    (folder / "class").mkdir()
    for name, data in whole.items():
        (folder / "whole").write_bytes(data)
        before[name] = np.asarray(open_picture(folder / "whole"))
    for k, (way, name, data) in enumerate(mutants(seed, count, whole)):
        path = folder / "class" / f"{k:04}{r.choice(SUFFIXES)}"
        path.write_bytes(data)
        names.append(f"class/{path.name}")
        for fault in picture_faults(path, name, before):
            yield f"{way} {name} {path}", fault
        read += not tried(open_picture, path)[1]
    model = cs.wrap(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2)),
        cs.Preprocess(8, (0.5,) * 3, (0.5,) * 3),
        labels=["class", "other"],
    )
    from clearsight.auditing.case import Case

    case = Case(model, open_folder(folder))
    listed = [p.name for p in case.pictures] + [n for n, _ in case.broken]
    if sorted(listed) != names or len(case.pictures) != read or not all(why for _, why in case.broken):
        yield "folder", f"{len(case.pictures)} used and {len(case.broken)} broken of {len(names)}, of which {read} read"


VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 7, 3.5, float("nan"), float("inf"), 10**30, 10**400, 1e308, "", "x", "\ud800", "a\0b",
    [], {}, [None], [0], [-1, -1], ["a"], ["a", "a"], [float("nan")] * 3, [0, 0, 0], [1e999], {"a": {}}, [[[[]]]],
)  # fmt: skip


def _spots(says: object) -> list[tuple[object, object]]:
    """(container, key) of everything in a JSON."""
    pairs = list(says.items()) if isinstance(says, dict) else list(enumerate(says)) if isinstance(says, list) else []
    return [(says, k) for k, _ in pairs] + [spot for _, v in pairs for spot in _spots(v)]


def changed_json(text: str, r: random.Random) -> tuple[str, bytes]:
    """A field dropped, of another type, NaN, huge or nested; a key or the text itself damaged."""
    says = json.loads(text)
    inside, key = r.choice(_spots(says))
    way = r.choice(["drop", "value", "value", "value", "rename", "double", "nest", "bytes", "bytes", "many digits"])
    if way == "drop":
        del inside[key]  # type: ignore[attr-defined]
    elif way == "value":
        inside[key] = copy.deepcopy(r.choice(VALUES))  # type: ignore[index]
    elif way == "rename" and isinstance(inside, dict):
        inside[f"{key}2"] = inside.pop(key)
    elif way == "double":
        inside[key] = [inside[key], inside[key]]  # type: ignore[index]
    elif way == "nest":
        return way, text.replace(json.dumps(inside[key]), "[" * 3000 + "]" * 3000, 1).encode()  # type: ignore[index]
    elif way == "many digits":
        return way, text.replace("1", "1" * 5000, 1).encode()
    elif way == "bytes":
        return way, r.choice(BYTES)(text.encode(), b'{"schema": 1}', r)
    return f"{way} {key}", json.dumps(says, ensure_ascii=r.random() < 0.5).encode("utf-8", "surrogatepass")


def changed_tensors(data: bytes, r: random.Random) -> tuple[str, bytes]:
    """A damaged safetensors: its bytes, its length, a tensor gone, extra, of another shape, type, place or value."""
    long = struct.unpack_from("<Q", data)[0]
    head, body = json.loads(data[8 : 8 + long]), bytearray(data[8 + long :])
    name = r.choice([k for k in head if k != "__metadata__"])
    way = r.choice(
        ["bytes", "bytes", "json", "drop", "extra", "shape", "dtype", "offsets", "value", "value", "metadata"]
    )
    begin, end = head[name]["data_offsets"]
    if way == "bytes":
        return way, r.choice(BYTES)(data, b"\0" * 99, r)
    if way == "json":
        how, text = changed_json(json.dumps(head), r)
        return f"{way} {how}", struct.pack("<Q", len(text)) + text + body
    if way == "drop":
        del head[name]
    elif way == "extra":
        head["extra"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + 4]}
        body += b"\0\0\x80\x3f"
    elif way == "shape":
        head[name]["shape"] = r.choice([head[name]["shape"][::-1], [*head[name]["shape"], 1], [-1], [2**62, 2**62], []])
    elif way == "dtype":
        head[name]["dtype"] = r.choice(["F64", "I32", "BF16", "U8", "BOOL", "C64", "F8_E4M3", "X", "U32", "I64"])
    elif way == "offsets":
        head[name]["data_offsets"] = r.choice(
            [[begin, end + 4], [begin + 4, end], [0, 4], [end, begin], [2**63, 2**63]]
        )
    elif way == "value":
        at = begin + 4 * r.randrange(max(1, (end - begin) // 4))
        numbers = [float("nan"), float("inf"), -float("inf"), 3.0, 1e38]
        if head[name]["dtype"] == "F32":
            body[at : at + 4] = struct.pack("<f", r.choice(numbers))
    else:
        head["__metadata__"] = r.choice([{"format": "pt"}, {"format": "np"}, {"x": 3}, [], "pt", None])
    text = json.dumps(head).encode()
    return f"{way} {name}", struct.pack("<Q", len(text)) + text + bytes(body)


def stated_weights(data: bytes) -> dict[str, np.ndarray]:
    """What a safetensors file says, read by its specification: the length, the JSON, the bytes."""
    long = struct.unpack_from("<Q", data)[0]
    head, body = json.loads(data[8 : 8 + long]), data[8 + long :]
    kinds = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
    return {
        name: np.frombuffer(body[slice(*about["data_offsets"])], kinds[about["dtype"]]).reshape(about["shape"])
        for name, about in head.items()
        if name != "__metadata__"
    }


def run_faults(folder: Path, texts: dict[str, bytes], x: torch.Tensor) -> Iterator[str]:
    model, refused, fault = tried(lambda f: cs.load(f, say=lambda _: None), folder)
    yield from [fault] if fault else []
    if refused and str(folder) not in refused and "config.json" not in refused and "preprocess" not in refused:
        yield f"a refusal that names no file: {refused}"
    if isinstance(model, cs.Classifier):
        says, state = stated_weights(texts["model.safetensors"]), model.net.state_dict()
        for name, value in state.items():
            if name not in says or not np.array_equal(
                says[name].astype(value.numpy().dtype), value.numpy(), equal_nan=True
            ):
                yield f"{name} is not what the file says"
            elif not torch.isfinite(value).all():
                yield f"{name} is not finite"
        _, refused, fault = tried(lambda _: model(x.expand(1, *x.shape[1:])), folder)
        yield from [fault] if fault else []
        _, _, fault = tried(lambda f: cs.save(model, f / "again"), folder)
        yield from [fault] if fault else []
    _, _, fault = tried(lambda f: train_pictures(str(f)), folder)
    yield from [fault] if fault else []
    _, _, fault = tried(lambda f: open_folder(f / "split.csv"), folder)
    yield from [fault] if fault else []
    _, _, fault = tried(lambda f: Report.read(f).as_dict(), folder)
    yield from [fault] if fault else []


def whole_run(folder: Path) -> None:
    """A run folder of a small network, with the table of its pictures and a report."""
    pre = cs.Preprocess((32, 32), (0.5,), (0.25,), "bilinear", 40)
    model = cs.load("clearsight:lenet5", weights="none", labels=["cat", "dog", "hen"], preprocess=pre)
    cs.save(model, folder)
    for k in range(6):
        Image.new("L", (40, 40), 40 * k).save(folder / f"{k}.png")
    rows = [f"{k}.png,{'cat' if k % 2 else 'dog'},{'train' if k < 3 else 'test'}" for k in range(6)]
    (folder / "split.csv").write_text("file,label,split\n" + "\n".join(rows) + "\n")
    report = cs.audit(model, open_folder(folder / "split.csv", split="test"), only="accuracy")
    report.save(folder, html=False)


def runs(seed: int, count: int, folder: Path) -> Iterator[tuple[str, str]]:
    r, home = random.Random(seed), folder / "whole"
    home.mkdir()
    whole_run(home)
    files = ("config.json", "model.safetensors", "split.csv", "report.json")
    whole = {name: (home / name).read_bytes() for name in files}
    if faults := list(run_faults(home, whole, torch.zeros(1, 1, 32, 32))):
        yield "whole", "; ".join(faults)
    for k in range(count):
        name = r.choice(["config.json", "config.json", "model.safetensors", "model.safetensors", *files])
        if name == "model.safetensors":
            way, data = changed_tensors(whole[name], r)
        elif name == "split.csv":
            way, data = "bytes", r.choice(BYTES)(whole[name], b"a;b\n1;2\n", r)
        else:
            way, data = changed_json(whole[name].decode(), r)
        texts = whole | {name: data}
        (home / name).write_bytes(data)
        for fault in run_faults(home, texts, torch.zeros(1, 1, 32, 32)):
            (folder / f"{k}-{name}").write_bytes(data)
            yield f"{k} {name} {way}", fault
        (home / name).write_bytes(whole[name])


def peak() -> int:
    """The most memory that this process held, in kB; ru_maxrss would begin with what its parent held."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])


def main() -> None:
    kind, seed, count, place = sys.argv[1:]
    for what, fault in {"pictures": pictures, "runs": runs}[kind](int(seed), int(count), Path(place)):
        print(json.dumps({"what": what, "fault": fault}), flush=True)
    most = peak()
    if most > MOST:
        print(json.dumps({"what": kind, "fault": f"{most / 2**20:.1f} GB of memory"}))
    print(json.dumps({"tried": int(count), "gigabytes": round(most / 2**20, 2)}))


if __name__ == "__main__":
    main()

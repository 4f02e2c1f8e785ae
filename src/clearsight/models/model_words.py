"""Words that name a model: what they can be, and what is wrong with them, told without torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

from clearsight.core.tables import names_table
from clearsight.errors import Refused

LIBRARIES = ("timm:", "torchvision:", "clearsight:")
DEMOS = {"demo": ("lite0", 224, 256), "demo-lite1": ("lite1", 240, 272), "demo-lite2": ("lite2", 260, 292)}
CONFIG, WEIGHTS = "config.json", "model.safetensors"  # of a run folder
FORMS = (
    "demo (demo-lite1, demo-lite2), timm:NAME, torchvision:NAME, clearsight:NAME, a run folder (config.json + "
    "model.safetensors), an exported file (.onnx, .pt2, .xml of OpenVINO), or package.module:factory (also "
    "path/to/file.py:factory)"
)
EXPORTED = (".onnx", ".pt2", ".xml")  # ONNX, torch.export, OpenVINO
_NOT_A_MODEL = (".pth", ".pt", ".th", ".bin", ".ckpt", ".safetensors", ".pkl", ".pickle", ".h5", ".keras")
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def names_model(word: str) -> bool:
    """Whether a word of the command line can only be a model."""
    named = word in DEMOS or word.startswith(LIBRARIES) or (Path(word) / CONFIG).exists() or names_exported(word)
    factory = ":" in word and not word.startswith("demo:") and not Path(word).exists() and not names_table(word)
    return named or factory


def reads_texts(words: str) -> bool:
    """Whether the words name a run folder whose model takes texts."""
    try:
        config = json.loads((Path(words) / CONFIG).read_text(encoding="utf-8"))
        return bool(config["preprocess"].get("alphabet"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def names_exported(word: str) -> bool:
    """Whether a word names an exported file, or a folder with one."""
    return word.lower().endswith(EXPORTED) or bool(exported_in(Path(word)))


def exported_in(folder: Path) -> list[Path]:
    """The exported models in a folder: its files model.onnx, model.pt2 and model.xml."""
    files = [folder / f"model{suffix}" for suffix in EXPORTED]
    return [file for file in files if file.is_file()]


def exported_file(words: str) -> Path | None:
    """The exported file that words name, by its path or that of its folder; None where they name none.

    Refused: a folder with several.
    """
    if words.lower().endswith(EXPORTED):
        return Path(words)
    files = exported_in(Path(words)) if words and not is_run(Path(words)) else []
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise Refused(f"{words} holds several exported models, {names}: name one, {files[0]}")
    return files[0] if files else None


def check_model_words(words: str) -> None:
    """Refuse words of which the names and files alone show that they are no model."""
    if words in DEMOS or words.startswith(LIBRARIES):
        return
    if words.startswith("demo:"):
        raise Refused(f"{words} names pictures, but the model comes first: demo {words}")
    exported = exported_file(words)
    if exported is not None:
        if not exported.is_file():
            raise Refused(f"there is no file {words}; a model is {FORMS}")
    elif words and Path(words).is_dir():
        if not is_run(Path(words)):
            raise _refuse_folder(Path(words))
    elif words.lower().endswith(_NOT_A_MODEL):
        raise _refuse_weights(words)
    elif ":" not in words:
        if Path(words).is_file():
            raise Refused(f"{words} is a file, not a model: a model is {FORMS}; for Python code, {words}:factory")
        if os.sep in words:
            raise Refused(f"there is no folder {words}; a model is {FORMS}")


def _refuse_folder(folder: Path) -> Refused:
    holds = f"a run folder holds {CONFIG} and {WEIGHTS} (clearsight.save writes them)"
    for depth in ("*", "*/*", "*/*/*"):
        if any(p.suffix.lower() in _PICTURES for p in folder.glob(depth)):
            return Refused(
                f"{folder} holds pictures, but the model comes first: clearsight audit demo {folder}; {holds}"
            )
    present = [name for name in (CONFIG, WEIGHTS) if (folder / name).is_file()]
    return Refused(f"{folder} is not a run folder: {holds}; it has {present[0] if present else 'neither'}")


def _refuse_weights(words: str) -> Refused:
    if not Path(words).is_file():
        return Refused(f"there is no file {words}; a model is {FORMS}")
    if words.lower().endswith((".h5", ".keras")):
        return Refused(f"{words} is a Keras model, but clearsight reads PyTorch: {FORMS}")
    return Refused(
        f"{words} holds weights (or a pickle), which do not say what network they belong to: give it too, "
        "timm:resnet18 with weights=FILE and labels=[...] "
        f"(timm:resnet18 --weights {words} --labels FILE), or a function that builds it, path/to/file.py:factory, with "
        "the same weights"
    )

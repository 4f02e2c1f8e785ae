"""Pages that are written from the package itself while mkdocs builds: the catalogue, the command line, the README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from typer.testing import CliRunner

from clearsight.cli.app import app, verbs
from clearsight.reporting.method_pages import pages

ROOT = Path(__file__).parent.parent


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to those on disk."""
    texts = pages() | {
        "index.md": _links((ROOT / "README.md").read_text()),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
        "command-line.md": _commands(),
        "cost.md": _together("cost.md", "passes.md", "fixed_cost.md", "score_cam.md", "memory.md"),
        "libra.md": (ROOT / "benchmarks" / "libra_table.md").read_text(),
        "training-table.md": _together("training.md", "first_model.md", "detector_step.md"),
        "repair-tables.md": _together(
            "robust_mnist.md",
            "robust_others.md",
            "right_reasons.md",
            "waterbirds.md",
            "intrusion.md",
            "intrusion_raw.md",
            "training_steps.md",
            "guided_step.md",
        ),
        "segmentation-tables.md": _together("fcn_strides.md", "segmenter_steps.md"),
        "shortcuts-table.md": (ROOT / "benchmarks" / "shortcuts.md").read_text(),
        "attack-figures.md": _together("mnist_attacks.md", "transfer.md", "purifiers.md"),
        "stealing-table.md": (ROOT / "benchmarks" / "stealing.md").read_text(),
        "export-table.md": (ROOT / "benchmarks" / "export.md").read_text(),
        "box-evaluation-table.md": (ROOT / "benchmarks" / "box_evaluation.md").read_text(),
        "selective-search-table.md": (ROOT / "benchmarks" / "selective_search.md").read_text(),
        "norms.md": (ROOT / "benchmarks" / "norms.md").read_text(),
        "norms.svg": (ROOT / "benchmarks" / "norms.svg").read_text(),
    }
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def _commands() -> str:
    parts = ["# Command line", "", "Everywhere: MODEL first, DATA second, `-o DIR`, `--seed`, `--device`, `--json`."]
    plain = {"COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
    for words in verbs():
        text = CliRunner().invoke(app, [*words, "--help"], env=plain).stdout
        parts += ["", f"## clearsight {' '.join(words)}", "", "```text", text.strip("\n").rstrip(), "```"]
    return "\n".join(parts) + "\n"


def _together(*names: str) -> str:
    """Tables that were measured for one page, one below the other."""
    return "\n".join((ROOT / "benchmarks" / name).read_text() for name in names)


def _links(readme: str) -> str:
    """The README's links into docs/ and to the files beside it, as they are seen from docs/."""
    readme = readme.replace("](docs/", "](").replace("](benchmarks/cost.md)", "](cost.md)")
    readme = readme.replace("](benchmarks/shortcuts.md)", "](shortcuts-table.md)")
    readme = readme.replace("](benchmarks/first_model.md)", "](training-table.md)")
    return re.sub(r"\]\((CONTRIBUTING|CHANGELOG)\.md", lambda m: f"]({m[1].lower()}.md", readme).replace(
        "[Apache-2.0](LICENSE)", "Apache-2.0"
    )

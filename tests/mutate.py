"""Break every method on purpose and see the tests catch it: ``python tests/mutate.py [WORD]``, a few minutes.

Each mutation is made in a copy of the tree, never in the tree itself.  Exit code 1 where one survives, or where a
method of the catalogue is broken nowhere in the table.  WORD: only the mutations whose file or text has it.
"""

import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

import pytest
import scipy.stats  # noqa: F401 (what the tests need is loaded once, before the forks; clearsight itself must not be)
import timm  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["tests/test_values.py", "tests/test_contract.py", "tests/test_checks.py", "tests/test_mended.py"]
KINDS = ("explainers", "attacks", "metrics", "checks")  # whose every method must be in the table
LIMIT = 180  # seconds; what takes longer hangs, and is caught

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "explainers/saliency.py": [
        ("g.abs().amax(1)", "g.amax(1)"),
        ("g.abs().amax(1)", "g.abs().mean(1)"),
    ],
    "explainers/grad_cam.py": [
        ("g.mean(places, keepdim=True) * a", "g * a"),
        ("g.mean(places, keepdim=True)", "g.sum(places, keepdim=True)"),
        ("g.mean(places, keepdim=True)", "g.abs().mean(places, keepdim=True)"),
        (".sum(1).relu()", ".sum(1)"),
    ],
    "explainers/integrated_gradients.py": [
        ("(k + 0.5) / steps", "(k + 1) / steps"),
        ("total / steps * (x - baseline)", "total / steps * x"),
        ("total / steps * (x - baseline)", "total / steps"),
        ("baseline + part * (x[rows] - baseline)", "part * x[rows]"),
        ("target[rows](model(p))", "target(model(p))"),
    ],
    "explainers/occlusion.py": [
        ("return total / count", "return total"),
        ("whole[rows] - target[rows](model(covered))", "target[rows](model(covered)) - whole[rows]"),
        ("flat(model, x[:1], fill)", "flat(model, x[:1], fill or 0.0)"),
        ("min(i * stride, free)", "i * stride"),
        ("math.ceil(free / stride) + 1", "free // stride + 1"),
        ("or stride > window", ""),
    ],
    "explainers/random.py": [
        ("draws.uniform(x[:, 0])", "draws.normal(x[:, 0]).abs()"),
        ("draws.uniform(x[:, 0])", "draws.uniform(x[:, 0]) - 0.5"),
        ("draws.uniform(x[:, 0])", "x[:, 0]"),
    ],
    "attacks/fgsm.py": [
        ("x - eps * g.sign()", "x + eps * g.sign()"),
        ("x - eps * g.sign()", "x - eps * g"),
        ("x - eps * g.sign()", "x - 1.1 * eps * g.sign()"),
        (").clamp(0, 1)", ")"),
    ],
    "attacks/pgd.py": [
        ("z.detach() - size * g.sign()", "z.detach() + size * g.sign()"),
        ("2.5 * eps", "0.5 * eps"),
        ("(loss.detach() < best_loss[rows])", "(loss.detach() < torch.inf)"),
        ("(met == best_met[rows]) & ", ""),
        ("(met & ~best_met[rows]) | ", ""),
        ("* draws.uniform(z, rows)", "* 0.5"),
        ("* draws.uniform(z, rows)", "* torch.rand_like(z)"),
        ("* draws.uniform(z, rows)", "* draws.uniform(z, rows) / 2"),
        ("range(steps + 1)", "range(steps)"),
        ("rows, z = rows[~met], z[~met]", "pass"),
        ("(x - eps).clamp(min=0)", "(x - eps)"),
        ("range(restarts)", "range(1)"),
        ("rows = (~best_met).nonzero()[:, 0] if early_stop else torch", "rows = torch"),
    ],
    "metrics/deletion.py": [("insert=False", "insert=True"), ("fill=fill", 'fill="blur"')],
    "metrics/insertion.py": [("insert=True", "insert=False"), ("fill=fill", 'fill="mean"')],
    "metrics/pointing_game.py": [
        ("hits.float() / highest.sum(1).float()", "(hits > 0).float()"),
        ("2 * tolerance + 1, stride=1, padding=tolerance", "4 * tolerance + 1, stride=1, padding=2 * tolerance"),
        ("flat.amax(1, keepdim=True)", "flat.amin(1, keepdim=True)"),
    ],
    "metrics/relevance_mass.py": [
        ("maps.cpu().clamp(min=0)", "maps.abs()"),
        ("positive.sum(1)).float()", "positive.sum()).float()"),
        ("regions.cpu().flatten(1)", "(~regions).cpu().flatten(1)"),
    ],
    "checks/accuracy.py": [
        ("topk(5, 1)", "topk(4, 1)"),
        ("(-float(p[i].max()), case.pictures[i].name)", "(float(p[i].max()), case.pictures[i].name)"),
        ("int(case.right[rows].sum())", "int((case.logits[rows].argmax(1) == case.truth[rows].int().argmax(1)).sum())"),
    ],
    "checks/calibration.py": [
        ("sure - right, bins)).sum()", "sure, bins)).sum()"),
        ("np.ceil(sure * bins).astype(np.int64) - 1", "np.floor(sure * bins).astype(np.int64)"),
        ('"fail" if value > most', '"fail" if value > ceiling'),
    ],
    "checks/looks_at_the_object.py": [
        ("s.right is not False and not math.isnan(s.mass)]", "not math.isnan(s.mass)]"),
        ("return self.mass - self.area", "return self.area - self.mass"),
        ("gain[1] <= 0", "gain[1] <= -1"),
        ("region.any() and not region.all()", "region.any()"),
    ],
    "checks/faithfulness.py": [
        ("(insertion - deletion) - (control_insertion - control_deletion)", "insertion - deletion"),
        ("interval[0] > 0", "interval[0] >= 0"),
        ('explain(case.model, x, "random"', 'explain(case.model, x, "saliency"'),
    ],
    "checks/sanity.py": [
        ("for name in layers[last:cut]:", "for name in layers[:0]:"),
        ("        abs(_spearman(before, after)),\n", "        _spearman(before, after),\n"),
        ("for p in layer.parameters(recurse=False):", "for p in []:"),
        ("if _constant(after):", "if False:"),
    ],
    "checks/robustness.py": [
        ("> eps for i in right)\n    value", "< eps for i in right)\n    value"),
        ("right = [i for i in rows if case.right[i]]", "right = rows"),
        ("Misclassify(case.truth[todo])", "Misclassify(case.predicted[todo])"),
    ],
}

# what the methods stand on: (file, old text, new text, pytest's -k)
CORE = [
    ("metrics/_order.py", "< counts[k]", "<= counts[k]", "deletion"),
    ("metrics/_order.py", "descending=True", "descending=False", "deletion"),
    (
        "metrics/_order.py",
        "draws.uniform(flat).argsort(dim=1)",
        "torch.ones_like(flat).cumsum(1).argsort(dim=1)",
        "ties",
    ),
    ("metrics/_order.py", "round(k * places / steps)", "k * (places // steps)", "deletion"),
    ("metrics/_order.py", "(values.shape[1] - 1)", "values.shape[1]", "deletion"),
    ("runner.py", "raw = raw.clamp(x - eps, x + eps)", "pass", "greedy"),
    ("runner.py", "return raw.clamp(0, 1)", "return raw", "greedy"),
    ("runner.py", "(eps / norm.clamp_min(1e-12)).clamp_max(1)", "eps", "greedy"),
    ("runner.py", "goal.met(scores(model, z, batch)) & ~already", "goal.met(scores(model, z, batch))", "wrong_already"),
    ("runner.py", "goal[rows], eps=eps", "goal[rows - rows], eps=eps", "wrong_already or batch_is"),
    ("runner.py", "torch.split(todo, batch) if len(todo) else ()", "torch.split(todo, batch)", "batch_is and attacks"),
    (
        "runner.py",
        "found = call.method(model, part.clone(), target",
        "found = call.method(model, part, target",
        "callers",
    ),
    ("runner.py", "maps[rows].clone()", "maps[rows]", "callers"),
    ("runner.py", "if finite and not bool(found.isfinite().all())", "if False", "bad_maps"),
    ("runner.py", "tuple(found.shape) != shape", "False", "bad_maps"),
    ("runner.py", "float(x.min()) < 0 or float(x.max()) > 1", "float(x.max()) > 300", "bad_pixels"),
    ("runner.py", "passes.forwards += len(args[0])", "passes.forwards += 1", "passes"),
    ("runner.py", "x.detach().clone()", "x.detach()", "callers"),
    ("draws.py", 'int.from_bytes(k, "big") ^ seed', 'int.from_bytes(k, "big")', "seed"),
    ("draws.py", 'int.from_bytes(k, "big") ^ seed', "seed", "draws"),
    (
        "draws.py",
        "generator=generators[i]) for i in which",
        "generator=generators[0]) for i in which",
        "draws or batch_is",
    ),
    ("draws.py", "np.random.set_state(numpy)", "pass", "chance"),
    ("draws.py", "random.setstate(python)", "pass", "chance"),
    ("draws.py", "with torch.random.fork_rng(devices=gpus()):", "if True:", "chance"),
    ("layers.py", "return caught[0].clone()", "return caught[0]", "grad-cam or grad_cam"),
    ("layers.py", "align_corners=False", "align_corners=True", "grad-cam or grad_cam"),
    ("layers.py", "torch.ones_like(score)", "torch.ones_like(score) / len(score)", "saliency or grad_cam"),
    ("layers.py", "and runs[s.name] == 1", "", "runs_once"),
    ("layers.py", "if _everything_passes(model, x[:1], name)", "if name", "runs_once"),
    ("layers.py", "spatial(s) and not s.pools", "spatial(s)", "dropout"),
    ("layers.py", '"attention" in s.kind', '"nothing" in s.kind', "attention"),
    ("classifier.py", "m.training = t", "pass", "left_alone"),
    ("classifier.py", "p.requires_grad_(r)", "pass", "left_alone"),
    ("classifier.py", "p.grad = g", "p.grad = None", "left_alone"),
    ("classifier.py", "b.copy_(was)", "pass", "buffers"),
    ("classifier.py", "left = _restore_hooks(modules, hooks)", "left = 0", "disturbs"),
    ("classifier.py", "if (p._version, p.data_ptr()) != (v, at)]", "if False]", "disturbs"),
    ("classifier.py", "x = (x - mean) / std", "x = x / std - mean", "grad_cam"),
    (
        "fill.py",
        "model.preprocess.mean if value is None",
        "(0.0,) * x.shape[1] if value is None",
        "occlusion or deletion",
    ),
    ("fill.py", "/ 10)", "/ 5)", "insertion"),
    ("fill.py", 'mode="replicate"', 'mode="constant"', "insertion"),
    ("batching.py", "yield k // versions, k % versions", "yield k % pictures, k // pictures % versions", "examples"),
    ("targets.py", "masked_fill(~chosen, -torch.inf)", "masked_fill(~chosen, 0.0)", "targets"),
    ("targets.py", "return -_log_odds(", "return _log_odds(", "targets"),
    ("targets.py", "return for_them - against", "return for_them - outputs.logsumexp(1)", "targets or loud"),
    ("targets.py", "outputs.softmax(1)", "outputs.sigmoid()", "targets"),
    ("targets.py", "-torch.inf).amax(1)", "0.0).amax(1)", "targets"),
    ("targets.py", "return Misclassify(self.y[rows])", "return self", "targets"),
    ("statistics.py", "z: float = 1.959963984540054", "z: float = 1.644853626951", "wilson"),
    ("statistics.py", "4 * n * n", "2 * n * n", "wilson"),
    ("statistics.py", "np.percentile(means, tails(len(v)))", "np.percentile(means, [10, 90])", "bootstrap"),
    ("statistics.py", "np.random.default_rng(seed)", "np.random.default_rng(0)", "bootstrap"),
    ("statistics.py", "if low >= floor", "if low > floor", "judge"),
    ("methods.py", "and not quoted and", "and", "word_none"),
    ("methods.py", "if bracket and", "if rest and", "not_there"),
    ("methods.py", "return repr(value)", 'return f"{value:g}"', "every_spelling"),
    ("methods.py", "if key in options:", "if False:", "not_there"),
]


def table() -> list[tuple[str, str, str, str]]:
    found = []
    for file, changes in METHODS.items():
        name = Path(file).stem
        words = f"{name} or {name.replace('_', '-')}" if "_" in name else name
        words = "test_checks or calibration" if file.startswith("checks/") else words
        found += [(file, old, new, words) for old, new in changes]
    return found + CORE


def run(words: str, change: tuple[str, str, str] | None) -> tuple[int, float]:
    """What pytest gives for the tests that words select, in a copy with the change made; and the seconds taken."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        for part in ("src", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if change:
            file, old, new = change
            path = copy / "src" / "clearsight" / file
            path.write_text(path.read_text().replace(old, new))
            signal.signal(signal.SIGALRM, too_long)
            signal.alarm(LIMIT)
        os.chdir(copy)
        sys.path.insert(0, str(copy / "src"))
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            code = pytest.main(["-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider", *TESTS, "-k", words])
        signal.alarm(0)
        if not Path(importlib.import_module("clearsight").__file__).is_relative_to(copy):
            raise RuntimeError("the tests did not run the copy")
        os.chdir(ROOT)
    return int(code), time.perf_counter() - began


def too_long(*_: object) -> None:
    raise TimeoutError


def without_mutation() -> list[str]:
    """The files of the catalogue that the table does not break."""
    from clearsight.methods import catalogue

    methods = [(kind, m.fn.__module__.rpartition(".")[2]) for kind in KINDS for m in catalogue(kind).values()]
    return [f"{kind}/{file}.py" for kind, file in methods if f"{kind}/{file}.py" not in METHODS]


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [m for m in table() if word in f"{m[0]} {m[1]} {m[2]}"]
    for file, old, _, _ in chosen:
        if (ROOT / "src" / "clearsight" / file).read_text().count(old) != 1:
            print(f"{file} does not hold {old!r} exactly once: mend the table")
            return 1
    bad = 0
    every_test = " or ".join(dict.fromkeys(f"({m[3]})" for m in chosen))
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:  # torch is imported once, here
        whole = pool.apply_async(run, (every_test, None))
        results = [pool.apply_async(run, (words, (file, old, new))) for file, old, new, words in chosen]
        for (file, old, new, _), result in zip(chosen, results, strict=True):
            code, seconds = result.get()
            verdict = {0: "SURVIVED", 1: "caught", 5: "NO TESTS"}.get(code, f"pytest {code}")
            bad += code != 1
            print(f"{verdict:8}  {seconds:5.1f} s  {file}: {old}  ->  {new}", flush=True)
        if whole.get()[0] != 0:
            print("the tests fail without any mutation: nothing above means anything")
            return 1
    missing = without_mutation()
    for file in missing:
        print(f"MISSING   {file}: add a mutation to the table")
    print(f"{len(chosen) - bad} of {len(chosen)} caught, {len(missing)} methods without a mutation")
    return 1 if bad or missing else 0


if __name__ == "__main__":
    sys.exit(main())

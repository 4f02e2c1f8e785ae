"""What is imported when: nothing that takes seconds and is not used.  Counted, not timed."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from thinning import with_slow

HEAVY = [
    "torch",
    "torchvision",
    "torch._dynamo",
    "huggingface_hub",
    "sympy",
    "timm",
    "scipy.stats",
    "sklearn",
    "pandas",
    "scipy.ndimage",
    "matplotlib",
]


def run(code: str) -> list[str]:
    """What the code prints last, as JSON, in a fresh process."""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    found: list[str] = json.loads(out.splitlines()[-1])
    return found


def imported_by(*words: str) -> set[str]:
    """Which heavy libraries a command imports, by its words; whether it succeeds or not."""
    code = f"""if True:
        import json, sys
        from clearsight.cli.app import main
        sys.argv = ["clearsight", *{words!r}]
        try:
            main()
        except SystemExit:
            pass
        print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))
    """
    return set(run(code))


@pytest.mark.parametrize(
    "words",
    [
        ("methods",),
        ("methods", "pgd"),
        ("explain", "demo", "nowhere/x.jpg"),
        ("explain", "demo", "demo:coffee", "-m", "grad-cm"),
        ("audit", "weights.pt", "demo"),
        ("audit", "--only", "acuracy"),
        ("attack", "demo", "demo:coffee", "-a", "pdg"),
        ("train", "nowhere"),
        ("compare", "demo", "--only", "acuracy"),
        ("steal", "demo", "--pool", "demo", "--thief", "knockof"),
        ("steal", "demo", "--pool", "demo", "--defend", "roundin"),
        ("serve", "demo", "--host", "0.0.0.0"),
        ("serve", "demo", "--keys", "nowhere.json"),
        ("serve", "demo", "--defend", "roundin"),
    ],
    ids=" ".join,
)
def test_a_list_and_a_mistyped_word_need_no_torch(words):
    assert imported_by(*words) == set()


def test_the_manifest_of_an_exported_file_needs_no_torch():
    code = f"""if True:
        import json, sys
        import clearsight.engines.manifest
        print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))
    """
    assert run(code) == []


@pytest.mark.parametrize(
    "methods",
    [("grad-cam", "lrp"), pytest.param(("deep-lift", "guided-backprop"), marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_a_picture_is_explained_without_the_compiler(methods, tmp_path):
    words = ("explain", "demo", "demo:coffee", *(word for name in methods for word in ("-m", name)))
    found = imported_by(*words, "--no-tests", "-o", str(tmp_path / "run"))
    assert (tmp_path / "run" / "coffee.png").is_file()
    assert found == {"torch", "torchvision", "timm", "scipy.ndimage"}  # which draws the outline of the object


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("inspect", "demo"), marks=pytest.mark.slow),
        pytest.param(("audit", "demo", "demo:coffee", "--only", "map-stability"), marks=pytest.mark.slow),
        pytest.param(("attack", "demo", "demo:coffee", "-a", "pgd(steps=2)"), marks=pytest.mark.slow),
    ],
    ids=["inspect", "audit", "attack"],
)
def test_no_command_but_train_imports_the_compiler(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not {"torch._dynamo", "sympy"} & imported_by(*words)


@pytest.mark.slow
def test_what_stands_in_for_the_compiler_is_gone_afterwards():
    code = """if True:
        import json, sys, torch
        disable = torch.compiler.disable
        from clearsight.core.light_imports import without_compiler
        with without_compiler():
            import timm, torchvision
        left_out = ("torch._dynamo", "torch._dynamo.utils", "huggingface_hub", "huggingface_hub.utils")
        light = not any(name in sys.modules for name in left_out)
        same = torch.compiler.disable is disable
        from torchvision import tv_tensors
        from torchvision.ops import roi_align
        picture = tv_tensors.Image(torch.ones(3, 2, 2))
        double = torch.compile(lambda x: tv_tensors.wrap(2 * x, like=x).as_subclass(torch.Tensor), backend="eager")
        boxes = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
        pooled = roi_align(torch.ones(1, 1, 4, 4), boxes, (1, 1))
        print(json.dumps([light, same, double(picture).sum().item(), pooled.item(), "torch._dynamo" in sys.modules]))
    """
    assert run(code) == [True, True, 24.0, 1.0, True]


def test_the_hub_is_imported_when_something_is_fetched(tmp_path):
    code = f"""if True:
        import json, os, sys
        os.environ |= {{"HF_HUB_OFFLINE": "1", "HF_HOME": {str(tmp_path)!r}}}
        from clearsight.core.light_imports import without_compiler
        with without_compiler():
            from timm.models import _hub
        light = "huggingface_hub" not in sys.modules
        try:
            _hub.load_state_dict_from_hf("nobody/nothing")
            said = ""
        except Exception as e:
            said = type(e).__module__.partition(".")[0]
        from huggingface_hub import utils
        same = _hub.EntryNotFoundError is utils.EntryNotFoundError
        same &= _hub.RepositoryNotFoundError is utils.RepositoryNotFoundError
        print(json.dumps([light, said, same, _hub.has_hf_hub(True)]))
    """
    assert run(code) == [True, "huggingface_hub", True, True]


def test_of_the_stand_in_anything_else_is_the_hub_s_own():
    code = """if True:
        import json, sys
        from clearsight.core.light_imports import without_compiler
        with without_compiler():
            import timm.models._hub, huggingface_hub
            from huggingface_hub import HfFileSystem
        print(json.dumps([HfFileSystem.__module__, HfFileSystem is sys.modules["huggingface_hub"].HfFileSystem]))
    """
    assert run(code) == ["huggingface_hub.hf_file_system", True]


@pytest.mark.slow
def test_the_compiler_itself_can_be_imported_meanwhile():
    code = """if True:
        import json, sys
        from clearsight.core.light_imports import without_compiler
        with without_compiler():
            import torch._dynamo
            ready = torch._dynamo.utils.is_compile_supported("cpu")
        with without_compiler():
            import torchvision
        print(json.dumps([ready, sys.modules["torch._dynamo.utils"].__file__ is not None]))
    """
    assert run(code) == [True, True]


@pytest.mark.parametrize(
    ("given", "turns"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "")]
)
def test_threads_that_wait_soon_sleep_unless_the_user_says_otherwise(given, turns):
    code = f"""if True:
        import json, os, sys
        for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            os.environ.pop(name, None)
        os.environ |= {given!r}
        from clearsight.cli.app import main
        sys.argv = ["clearsight", "--version"]
        try:
            main()
        except SystemExit:
            pass
        print(json.dumps([os.environ.get("GOMP_SPINCOUNT", "")]))
    """
    assert run(code) == [turns]


EXPLAIN = ("explain", "demo", "demo:coffee")


@pytest.mark.parametrize("words", with_slow([("audit", "demo"), EXPLAIN], EXPLAIN), ids=" ".join)
def test_no_garbage_is_looked_for_among_what_is_imported(words):
    """How often, until the model is there, and how many of the objects until then are gone through afterwards."""
    code = f"""if True:
        import gc, json, sys
        looks = []
        from clearsight.cli.app import main
        from clearsight.data import datasets
        def opened(*_words, **_options):
            now = gc.get_freeze_count() > 200_000, gc.isenabled(), gc.get_threshold()[0] > 0
            print(json.dumps([len(looks), *now]))
            sys.exit()
        datasets.open_data = datasets.open_each = opened
        gc.callbacks.append(lambda phase, about: looks.append(phase) if "timm" in sys.modules else None)
        sys.argv = ["clearsight", *{words!r}]
        main()
    """
    looks, *after = run(code)
    assert int(looks) < 20
    assert after == [True, True, True]


def test_a_picture_is_judged_before_charts_can_be_drawn():
    code = """if True:
        import json, sys
        from clearsight.auditing.audit import Case, with_model_notes
        from clearsight.data.datasets import open_data
        from clearsight.models.loading import load
        model = load("demo")
        logits = Case(model, with_model_notes(open_data("demo:coffee"), model)).logits
        assert logits.shape == (1, 1000)
        print(json.dumps([m for m in ("matplotlib", "scipy.ndimage", "scipy.stats", "jinja2") if m in sys.modules]))
    """
    assert run(code) == []


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
@pytest.mark.parametrize("command", [False, True])
def test_memory_is_used_again(command):
    """Pages that the system clears, counted, for 40 blocks of 64 MB of which one is alive at a time."""
    code = f"""if True:
        import json, resource, sys
        if {command}:
            from clearsight.cli.app import main
            sys.argv = ["clearsight", "--version"]
            try:
                main()
            except SystemExit:
                pass
        def cleared():
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        def block():
            return bytearray(b"x") * 2**26
        block()
        before = cleared()
        for _ in range(40):
            block()
        print(json.dumps([str((cleared() - before) * resource.getpagesize() / 2**26)]))
    """
    (blocks,) = map(float, run(code))
    assert (blocks < 2) if command else (blocks > 30)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_training_keeps_what_a_step_frees():
    """Pages that the system clears, counted in blocks, where 8 blocks of 8 MB are alive together, and then none."""
    code = """if True:
        import json, resource
        from clearsight.core.memory import ALL, reuse_memory
        def cleared():
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        found = []
        for free in (2**24, ALL):
            reuse_memory(free)
            [bytearray(b"x") * 2**23 for _ in range(8)]
            before = cleared()
            [bytearray(b"x") * 2**23 for _ in range(8)]
            found.append(str((cleared() - before) * resource.getpagesize() / 2**23))
        print(json.dumps(found))
    """
    little, all_of_it = map(float, run(code))
    assert little > 4
    assert all_of_it < 2

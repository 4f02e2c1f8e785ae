"""What is imported when: nothing that takes seconds and is not used.  Counted, not timed."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

HEAVY = [
    "torch",
    "torchvision",
    "torch._dynamo",
    "sympy",
    "timm",
    "scipy.stats",
    "sklearn",
    "pandas",
    "matplotlib.pyplot",
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
    ],
    ids=" ".join,
)
def test_a_list_and_a_mistyped_word_need_no_torch(words):
    assert imported_by(*words) == set()


def test_one_picture_is_explained_without_the_compiler(tmp_path):
    found = imported_by("explain", "demo", "demo:coffee", "-m", "grad-cam", "--no-tests", "-o", str(tmp_path / "run"))
    assert (tmp_path / "run" / "coffee.png").is_file()
    assert found == {"torch", "torchvision", "timm"}


def test_what_stands_in_for_the_compiler_is_gone_afterwards():
    code = """if True:
        import json, sys, torch
        disable = torch.compiler.disable
        from clearsight.core.light_imports import without_compiler
        with without_compiler():
            import timm, torchvision
        light = "torch._dynamo" not in sys.modules and "torch._dynamo.utils" not in sys.modules
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


@pytest.mark.parametrize(("load", "policy"), [(0.0, ""), (1e3, "PASSIVE")])
def test_threads_that_wait_sleep_where_others_keep_the_machine_busy(load, policy):
    code = f"""if True:
        import json, os, sys
        os.environ.pop("OMP_WAIT_POLICY", None)
        os.getloadavg = lambda: ({load}, 0.0, 0.0)
        from clearsight.cli.app import main
        sys.argv = ["clearsight", "--version"]
        try:
            main()
        except SystemExit:
            pass
        print(json.dumps([os.environ.get("OMP_WAIT_POLICY", "")]))
    """
    assert run(code) == [policy]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep what is freed")
def test_the_command_line_gets_pages_for_a_tensor_once():
    code = """if True:
        import json, resource, sys
        from clearsight.cli.app import main
        sys.argv = ["clearsight", "--version"]
        try:
            main()
        except SystemExit:
            pass
        import torch

        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.full((2**24,), 0.0)  # 64 MB, freed at once
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        pages = [faults() for _ in range(20)]  # glibc sets a little aside after each of the first seven
        print(json.dumps([pages[0] > 30, max(pages[10:]) <= 8]))
    """
    assert run(code) == [True, True]

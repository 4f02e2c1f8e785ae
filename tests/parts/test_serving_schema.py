"""The API is what /openapi.json says it is: requests made from the schema, right and wrong, find nothing.

Longer, against any server that runs, with all of its phases: ``schemathesis run http://127.0.0.1:8000/openapi.json
--max-examples 200 --exclude-checks positive_data_acceptance``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from clearsight.serving.service import Service
from clearsight.serving.torch_backend import torch_backend
from servers import as_file, picture, pooled_model, served

schemathesis = pytest.importorskip("schemathesis", reason="the extra `test` brings schemathesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402

PICTURES = [as_file(picture(k), form) for k, form in enumerate(("PNG", "JPEG", "GIF"))]
schemathesis.openapi.media_type("image/png", st.sampled_from(PICTURES), aliases=["image/jpeg"])
schemathesis.openapi.format("binary", st.sampled_from(PICTURES))
schemathesis.openapi.format("picture", st.sampled_from([base64.b64encode(p).decode() for p in PICTURES]))


CALM = list(HealthCheck)
CHECKS = [
    check
    for check in schemathesis.checks.CHECKS.get_all()
    # whether a text names an explainer or a class of the model is no matter of a schema
    if check.__name__ != "positive_data_acceptance"
]


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
    with served(Service(torch_backend(pooled_model()), "demo")) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("examples", [pytest.param(2, id="few"), pytest.param(200, id="many", marks=pytest.mark.slow)])
def test_requests_made_from_the_schema_find_nothing(api: Any, mode: GenerationMode, examples: int) -> None:
    tried = []
    for result in api.get_all_operations():
        operation = result.ok()

        @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=CALM)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)
            tried.append(case.operation.label)

        with suppress(Unsatisfiable):  # a route without parameters has no wrong ones
            ask()
    assert len(set(tried)) >= 7  # those that take pictures, and of right requests all
    assert len(tried) >= 7 * examples

"""The Open Inference Protocol, version 2, over HTTP: what Triton's and KServe's clients speak.

Source: the protocol of KServe, "Open Inference Protocol (V2)".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from clearsight._version import __version__
from clearsight.serving import openapi
from clearsight.serving.backend import Answers
from clearsight.serving.pictures import of_base64
from clearsight.serving.problems import Problem
from clearsight.serving.service import Read, Service, Visit
from clearsight.serving.tensors import LENGTH, Array, Asked, read_request, write_response

VERSION = "1"
_INPUTS = "send picture (UINT8, count x height x width x channels) or file (BYTES, count)"
_OBJECT: dict[str, Any] = {"type": "object"}


def v2_routes(service: Service) -> APIRouter:
    """The routes of a served model."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    unknown = openapi.unknown_model()

    @router.get("", summary="The server", responses=openapi.answers("Server.", _OBJECT, {"name": "clearsight"}))
    async def server() -> Response:
        return JSONResponse({"name": "clearsight", "version": __version__, "extensions": ["binary_tensor_data"]})

    @router.get("/health/live", summary="Whether it lives", responses=openapi.answers("Yes.", _OBJECT, {"live": True}))
    async def live() -> Response:
        return JSONResponse({"live": True})

    ready_or_not = openapi.answers("Yes.", _OBJECT, {"ready": True}) | openapi.not_ready()

    @router.get("/health/ready", summary="Whether it takes requests", responses=ready_or_not)
    async def ready() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    async def metadata(request: Request, model: str) -> Response:
        service.check_name(model)
        labels = {"parameters": {"labels": list(service.backend.labels)}}
        return JSONResponse(_metadata(service) | (labels if service.gate.knows(request) else {}))

    async def model_ready(model: str) -> Response:
        service.check_name(model)
        return JSONResponse({"name": service.name, "ready": service.ready}, 200 if service.ready else 503)

    async def infer(request: Request, model: str) -> Response:
        visit = service.enter(request)
        service.check_name(model)
        asked = read_request(await service.body(visit, request), request.headers.get(LENGTH))
        _check_outputs(service, asked)
        answers = await service.answer(visit, await _pictures(service, visit, asked))
        return _answered(service, asked, answers)

    async def version_metadata(request: Request, model: str, version: str) -> Response:
        service.check_name(model, version)
        return await metadata(request, model)

    async def version_ready(model: str, version: str) -> Response:
        service.check_name(model, version)
        return await model_ready(model)

    async def version_infer(request: Request, model: str, version: str) -> Response:
        service.check_name(model, version)
        return await infer(request, model)

    about = openapi.answers("Inputs and outputs.", _OBJECT, {"name": "demo", "inputs": [], "outputs": []}) | unknown
    inferred = openapi.answers("Tensors.", openapi.INFERRED, openapi.INFERRED_EXAMPLE) | openapi.errors(404)
    body = openapi.json_body(openapi.INFER, openapi.INFER_EXAMPLE)
    for place, tell, is_ready, answer in (
        ("/models/{model}", metadata, model_ready, infer),
        ("/models/{model}/versions/{version}", version_metadata, version_ready, version_infer),
    ):
        router.get(place, summary="Inputs and outputs of the model", responses=about)(tell)
        router.get(f"{place}/ready", summary="Whether the model is ready", responses=ready_or_not | unknown)(is_ready)
        router.post(f"{place}/infer", summary="Tensors in, tensors out", responses=inferred, openapi_extra=body)(answer)
    return router


def _metadata(service: Service) -> dict[str, Any]:
    channels = service.backend.preprocess.channels
    return {
        "name": service.name,
        "versions": [VERSION],
        "platform": f"clearsight_{service.backend.engine}",
        "inputs": [{"name": "picture", "datatype": "UINT8", "shape": [-1, -1, -1, channels]}],
        "outputs": [
            {"name": name, "datatype": "BYTES" if name == "label" else "FP32", "shape": [-1, *shape]}
            for name, shape in _outputs(service).items()
        ],
    }


def _outputs(service: Service) -> dict[str, list[int]]:
    """The outputs that can be asked for, and their shape behind the number of pictures."""
    backend = service.backend
    found: dict[str, list[int]] = {backend.output: [len(backend.labels)]}
    if backend.map_shape is not None:
        found["map"] = [*backend.map_shape]
    if backend.features and "embed" not in service.hidden:
        found["features"] = [backend.features]
    return found | ({} if backend.scores == "values" else {"label": []})


def _check_outputs(service: Service, asked: Asked) -> None:
    known = _outputs(service)
    for name in asked.outputs or ():
        if name not in known:
            raise Problem(400, f"the model has no output {name[:40]!r}", f"ask for {', '.join(known)}")


async def _pictures(service: Service, visit: Visit, asked: Asked) -> Read:
    """The pictures of the one input, `picture` or `file`."""
    name, values = next(iter(asked.inputs.items()))
    if len(asked.inputs) > 1 or name not in ("picture", "file"):
        raise Problem(400, f"the inputs are {', '.join(repr(n[:40]) for n in asked.inputs)}", _INPUTS)
    if name == "file":
        if values.dtype != object or values.ndim not in (1, 2) or values.size != len(values):
            raise Problem(400, f"the input file has shape {values.shape}", _INPUTS)
        files = [value if _is_file(value) else of_base64(value.decode("latin-1")) for value in values.reshape(-1)]
        return await service.read(visit, files, ask=True)
    if values.dtype != np.uint8 or values.ndim != 4:
        raise Problem(400, f"the input picture has {values.ndim} axes of {values.dtype}", _INPUTS)
    return await service.resize(visit, list(values), ask=True)


def _is_file(value: bytes) -> bool:
    """Whether bytes are a picture file and no base64 of one: they hold what base64 has not."""
    return not value.isascii() or any(c < 0x20 for c in value[:64])


def _answered(service: Service, asked: Asked, answers: Answers) -> Response:
    found: dict[str, Array] = {service.backend.output: answers.values}
    if answers.maps is not None and service.backend.map_shape is not None:
        found["map"] = answers.maps
    wanted = list(asked.outputs) if asked.outputs else list(found)
    if answers.features is not None:
        found["features"] = answers.features
    if "label" in wanted:
        labels = np.empty(len(answers.values), object)
        labels[:] = [service.backend.labels[k].encode() for k in answers.values.argmax(1)]
        found["label"] = labels
    binary = {name: (asked.outputs or {}).get(name, asked.binary) for name in wanted}
    head: dict[str, Any] = {"model_name": service.name, "model_version": VERSION}
    if asked.id:
        head["id"] = asked.id
    body, length = write_response(head, {name: found[name] for name in wanted}, binary)
    if length is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type="application/octet-stream", headers={LENGTH: str(length)})

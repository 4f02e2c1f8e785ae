"""The first version of KServe's protocol: :predict and :explain, the verb that the second version has not.

Source: the protocol of KServe, "Data Plane (V1)".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from clearsight.serving import openapi
from clearsight.serving.bodies import json_of
from clearsight.serving.parameters import check_parameters
from clearsight.serving.pictures import of_base64
from clearsight.serving.problems import Problem
from clearsight.serving.routes import Explainer, Target, Top, explained
from clearsight.serving.service import Read, Service, Visit
from clearsight.serving.telling import answer_facts

_FIX = 'send {"instances": [{"b64": "<base64 of the file>"}]}, or lists of rows of pixels from 0 to 255'


def v1_routes(service: Service) -> APIRouter:
    """The routes of a served model."""
    router = APIRouter(prefix="/v1/models", tags=["KServe v1"])
    named = openapi.errors(404)

    async def instances_of(request: Request, model: str, *, ask: bool) -> tuple[Visit, Read]:
        check_parameters(request)
        visit = service.enter(request)
        service.check_name(model)
        value = json_of(await service.body(visit, request))
        instances = value.get("instances") if isinstance(value, dict) else None
        if not isinstance(instances, list) or not instances:
            raise Problem(400, "the request has no instances", _FIX)
        if isinstance(instances[0], dict):
            return visit, await service.read(visit, [_file_of(instance) for instance in instances], ask=ask)
        return visit, await service.resize(visit, [_pixels_of(instance) for instance in instances], ask=ask)

    @router.post(
        "/{model}:predict",
        summary="The top answers to each picture",
        responses=openapi.answers(
            "Answers.", {"type": "object"}, {"predictions": [openapi.PREDICTION_EXAMPLE["answers"]]}
        )
        | named,
        openapi_extra=openapi.json_body(openapi.INSTANCES, openapi.INSTANCES_EXAMPLE),
    )
    async def predict(request: Request, model: str, top: Top = 5) -> Response:
        visit, read = await instances_of(request, model, ask=True)
        answers = await service.answer(visit, read)
        rows = range(len(read.pictures))
        return JSONResponse({"predictions": [answer_facts(service.backend, answers, i, top) for i in rows]})

    @router.post(
        "/{model}:explain",
        summary="The raw heatmap of each picture",
        responses=openapi.answers("Maps.", {"type": "object"}, {"explanations": [openapi.EXPLANATION_EXAMPLE]}) | named,
        openapi_extra=openapi.json_body(openapi.INSTANCES, openapi.INSTANCES_EXAMPLE),
    )
    async def explain(
        request: Request,
        model: str,
        method: Explainer = None,
        target: Target = None,
    ) -> Response:
        visit, read = await instances_of(request, model, ask=False)
        told: list[dict[str, Any]] = [
            (await explained(service, visit, one, method, target))[0] for one in read.pictures
        ]
        return JSONResponse({"explanations": told})

    _add_state(router, service)  # after those with a verb behind the name, which it would match too
    return router


def _add_state(router: APIRouter, service: Service) -> None:
    @router.get(
        "", summary="The model's name", responses=openapi.answers("Names.", {"type": "object"}, {"models": ["demo"]})
    )
    async def models(request: Request) -> Response:
        check_parameters(request)
        return JSONResponse({"models": [service.name]})

    @router.get(
        "/{model}",
        summary="Whether the model is ready",
        responses=openapi.answers("State.", {"type": "object"}, {"name": "demo", "ready": True})
        | openapi.unknown_model(),
    )
    async def state(request: Request, model: str) -> Response:
        check_parameters(request)
        service.check_name(model)
        return JSONResponse({"name": service.name, "ready": service.ready})


def _file_of(instance: Any) -> bytes:
    if isinstance(instance, dict):
        inner = instance.get("image", instance)
        found = [inner[key] for key in ("b64", "picture") if isinstance(inner, dict) and key in inner]
        if len(found) == 1:
            return of_base64(found[0])
    raise Problem(400, "an instance holds no picture", _FIX)


def _pixels_of(instance: Any) -> np.ndarray[Any, Any]:
    try:
        values = np.asarray(instance)
        right = values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= 255
    except (ValueError, OverflowError):
        right = False
    if not right:
        raise Problem(400, "an instance holds no pixels", _FIX)
    return values.astype(np.uint8)

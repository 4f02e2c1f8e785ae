"""/predict, /explain and /embed: one picture in, JSON or a picture out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from clearsight.internals.layers import enlarge
from clearsight.serving import openapi
from clearsight.serving.bodies import picture_in
from clearsight.serving.parameters import RouteWithDefaults, check_parameters
from clearsight.serving.pictures import Sent
from clearsight.serving.problems import Problem
from clearsight.serving.service import Read, Service, Visit
from clearsight.serving.telling import (
    answer_facts,
    explanation_facts,
    map_facts,
    outlier_facts,
    overlay_png,
    picture_facts,
    rounded,
)

Top = Annotated[int, Query(ge=1, le=1000, description="Number of answers.")]
Target = Annotated[
    str | None, Query(description="The class that is explained, by name or number; the top one if left out.")
]
Explainer = Annotated[
    str | None, Query(description='The explainer, such as "grad-cam" or "lrp(epsilon=0.01)"; one of few passes.')
]


def picture_routes(service: Service) -> APIRouter:
    """The routes of a served model."""
    router = APIRouter(tags=["pictures"], route_class=RouteWithDefaults)
    for add in (_add_predict, _add_explain, _add_embed):
        add(router, service)
    return router


async def _picture(service: Service, request: Request, *, ask: bool) -> tuple[Visit, Read]:
    """The one picture of a request, counted and read.  ask: as in `Service.read`."""
    check_parameters(request)
    visit = service.enter(request)
    body = await service.body(visit, request)
    content = picture_in(body, request.headers.get("content-type", ""))
    return visit, await service.read(visit, [content], ask=ask)


def _add_predict(router: APIRouter, service: Service) -> None:
    backend = service.backend

    @router.post(
        "/predict",
        summary="The top answers to a picture, with their probabilities",
        responses=openapi.answers("The answers.", openapi.PREDICTION, openapi.PREDICTION_EXAMPLE) | openapi.errors(),
        openapi_extra=openapi.PICTURE_BODY,
    )
    async def predict(
        request: Request,
        top: Top = 5,
        map: Annotated[bool, Query(description="Also the class activation map, from the same pass.")] = False,
    ) -> Response:
        if map and backend.map_shape is None:
            raise Problem(400, "this model gives no map with its answer", "ask POST /explain")
        visit, read = await _picture(service, request, ask=True)
        answers = await service.answer(visit, read)
        told: dict[str, Any] = {
            "model": service.name,
            "answers": answer_facts(backend, answers, 0, top),
            "picture": picture_facts(read.pictures[0]),
        }
        if "outlier" not in service.hidden:
            told["outlier"] = outlier_facts(answers, 0, service.reference)
        if map:
            told["map"] = map_facts(backend, answers, 0)
        return JSONResponse(told)


def _add_explain(router: APIRouter, service: Service) -> None:
    @router.post(
        "/explain",
        summary="The raw heatmap of a picture, as numbers or drawn over it",
        responses=openapi.map_or_picture("The map.", openapi.EXPLANATION, openapi.EXPLANATION_EXAMPLE)
        | openapi.errors(),
        openapi_extra=openapi.PICTURE_BODY,
    )
    async def explain(
        request: Request,
        method: Explainer = None,
        target: Target = None,
        form: Annotated[
            Literal["numbers", "overlay"], Query(alias="as", description="numbers in JSON, or a PNG file.")
        ] = "numbers",
    ) -> Response:
        visit, read = await _picture(service, request, ask=False)
        sent = read.pictures[0]
        told, heat = await explained(service, visit, sent, method, target)
        if form == "overlay":
            png = overlay_png(sent.pixels, heat, signed=told["signed"])
            return Response(png, media_type="image/png")
        return JSONResponse({"model": service.name, **told})


def _add_embed(router: APIRouter, service: Service) -> None:
    backend = service.backend

    @router.post(
        "/embed",
        summary="The features of a picture: what enters the model's last linear layer",
        responses=openapi.answers("The features.", openapi.FEATURES, openapi.FEATURES_EXAMPLE) | openapi.errors(),
        openapi_extra=openapi.PICTURE_BODY,
    )
    async def embed(request: Request) -> Response:
        service.check_told("embed")
        visit, read = await _picture(service, request, ask=True)
        answers = await service.answer(visit, read)
        if answers.features is None:
            raise Problem(
                400,
                "no linear layer is found at the end of this model, and so no features before it",
                "ask POST /predict",
            )
        layer = (backend.layers or {}).get("features", "")
        return JSONResponse({"model": service.name, "layer": layer, "features": rounded(answers.features[0])})


async def explained(
    service: Service, visit: Visit, sent: Sent, method: str | None, target: str | None
) -> tuple[dict[str, Any], torch.Tensor]:
    """An explanation as JSON, and its map (H, W).

    Where neither a method nor a class is named, and the model gives a map with its answer, it is that one, enlarged.
    """
    service.check_told("explain")
    backend = service.backend
    if method is None and target is None and backend.map_shape is not None:
        answers = await service.answer(visit, Read([sent]))
        facts = map_facts(backend, answers, 0)
        assert answers.maps is not None
        heat = enlarge(torch.from_numpy(answers.maps.copy()), backend.preprocess.size)[0]
        return {
            "method": f"cam(layer={facts['layer']})" if facts["layer"] else "cam",
            "class": facts["class"],
            "label": backend.labels[facts["class"]],
            "signed": True,
            "shape": list(heat.shape),
            "map": rounded(heat.numpy()),
        }, heat
    explanation = await service.explain(visit, sent, method or "grad-cam", target)
    return explanation_facts(backend, explanation), explanation.maps[0]

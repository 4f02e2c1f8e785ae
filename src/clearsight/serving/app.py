"""The application: routes, errors as sentences, and the watch around it all."""

from __future__ import annotations

import http
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from clearsight._version import __version__
from clearsight.errors import Refused
from clearsight.serving import openapi
from clearsight.serving.measures import MEDIA_TYPE
from clearsight.serving.page import page
from clearsight.serving.problems import Problem
from clearsight.serving.routes import picture_routes
from clearsight.serving.service import Service
from clearsight.serving.v1_routes import v1_routes
from clearsight.serving.v2_routes import v2_routes
from clearsight.serving.watch import Watch, Write


def build_app(service: Service, write: Write | None = None) -> ASGIApp:
    """The application of a served model, which closes it when it ends.

    Args:
        service: the model.
        write: takes each line of the log; None for no log.
    """
    app = api_of(service)
    return Watch(app, service.measures, write, service.settings.waiting, service.alone)


def api_of(service: Service) -> FastAPI:
    """The routes alone, with their description in /openapi.json."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="clearsight serve",
        version=__version__,
        description="Answers, explanations and features of an image classifier.",
        docs_url=None,  # their pages fetch scripts from elsewhere
        redoc_url=None,
        lifespan=life,
    )
    app.include_router(picture_routes(service))
    app.include_router(v2_routes(service))
    app.include_router(v1_routes(service))

    @app.get(
        "/metrics",
        tags=["server"],
        summary="Measures for Prometheus",
        response_class=Response,
        responses={200: {"content": {MEDIA_TYPE: {}}, "description": "Text."}, **openapi.no_key()},
    )
    async def metrics(request: Request) -> Response:
        service.gate.key_of(request)
        return Response(service.measures.text(), headers={"Content-Type": MEDIA_TYPE})

    text, policy = page(service.backend, service.name, guarded=service.gate.guarded)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        return HTMLResponse(text, headers=headers)

    app.openapi_schema = _named(app.openapi(), service.name)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _wrong_parameter)
    app.add_exception_handler(Exception, _defect)
    return app


def _named(description: dict[str, Any], name: str) -> dict[str, Any]:
    """The description, in which the model's name and version are the only ones there are."""
    only = {"model": name, "version": "1"}
    for methods in description["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["name"] in only:
                    parameter["schema"]["enum"] = [only[parameter["name"]]]
    return description


async def _refused(_request: Request, e: Exception) -> Response:
    problem = e if isinstance(e, Problem) else Problem(400, str(e))
    return JSONResponse({"error": str(problem)}, problem.status, problem.headers)


async def _http_error(request: Request, e: Exception) -> Response:
    assert isinstance(e, HTTPException)
    fixes = {404: "GET /openapi.json lists all there is", 405: "GET /openapi.json says which methods it has"}
    what = {404: "there is nothing at this address", 405: f"{request.method} is not allowed here"}
    words = what.get(e.status_code, http.HTTPStatus(e.status_code).phrase)
    problem = Problem(e.status_code, words, fixes.get(e.status_code, ""))
    return JSONResponse({"error": str(problem)}, e.status_code, e.headers)


async def _wrong_parameter(_request: Request, e: Exception) -> Response:
    assert isinstance(e, RequestValidationError)
    first = e.errors()[0]
    name = first["loc"][-1]
    return JSONResponse({"error": f"the parameter {name}: {first['msg']}"}, 422)


async def _defect(_request: Request, _e: Exception) -> Response:
    return JSONResponse({"error": "the server failed on this request, which is a defect of Clearsight"}, 500)

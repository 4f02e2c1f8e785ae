"""What stands behind the question mark of an address: nothing that is asked for is silently left aside."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from clearsight.errors import nearest
from clearsight.serving.problems import Problem


class RouteWithDefaults(APIRoute):
    """A route that takes a request, and parameters that all have defaults.

    Where nothing stands behind the question mark its function is called with the request alone: to look for what is not
    there takes FastAPI longer than all else that a route does.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        with_parameters = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if request.scope["query_string"]:
                return await with_parameters(request)
            answer: Response = await self.endpoint(request)
            return answer

        return handle


def check_parameters(request: Request) -> None:
    """Refuse parameters that the route of a request does not read, and those that are given twice.

    Routes call it themselves: as a dependency of FastAPI's it takes longer than all else that a route does.
    """
    if not request.scope["query_string"]:
        return
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            fix = nearest(name, known) if known else "leave it out"
            raise Problem(400, f"there is no parameter {name[:40]!r} here", fix)
        if name in seen:
            raise Problem(400, f"the parameter {name} is given twice", "give it once")
        seen.add(name)


def check_alone(names: list[str], kind: str) -> None:
    """Refuse what stands beside the picture in a form or in JSON, where it would not be read."""
    if names:
        raise Problem(
            400,
            f"the {kind} holds {names[0][:40]!r} beside the picture",
            f"parameters stand in the address, as in /predict?top=2; leave {names[0][:40]!r} out",
        )

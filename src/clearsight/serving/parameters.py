"""What stands behind the question mark of an address: nothing that is asked for is silently left aside."""

from __future__ import annotations

from fastapi import Request

from clearsight.errors import nearest
from clearsight.serving.problems import Problem


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

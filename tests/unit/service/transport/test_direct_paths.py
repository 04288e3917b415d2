"""What goes past FastAPI's routing is answered as it would have been, and nothing else goes there."""

from collections.abc import Iterable
from typing import Annotated
from urllib.parse import parse_qsl

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from service.transport.direct_paths import DirectPaths, split_query
from service.transport.direct_route import DirectRoute


class OddError(Exception):
    """One that the application has an answer to."""


class _OddestError(OddError):
    """Answered by its base's handler."""


async def marked(request: Request) -> None:
    """A dependency of the whole application."""
    request.state.mark = "marked"


def client_of(*, direct: bool) -> TestClient:
    router = APIRouter(prefix="/things", route_class=DirectRoute)

    @router.post("")
    async def fixed(request: Request, n: Annotated[int, Query(ge=1)], text: str = "") -> Response:
        if n == 7:
            raise _OddestError
        if n == 8:
            raise LookupError("nobody knows")
        route = request.scope["route"].path
        return Response(f"{n} {text!r} {route} {request.state.mark}", 201, {"X-N": str(n)})

    @router.get("/newest")
    def newest() -> dict[str, str]:
        return {"is": "newest"}

    @router.get("/{name}")
    async def shadowed(name: str) -> Response:
        return Response(f"shadowed {name}")

    @router.get("/{name}/part/{part}")
    async def part(request: Request, name: str, part: str) -> Response:
        return Response(f"{name} {part} {request.path_params}")

    app = FastAPI(dependencies=[Depends(marked)])
    app.include_router(router)

    @app.exception_handler(OddError)
    def answer(request: Request, error: Exception) -> Response:
        return Response(f"{request.url.path}: {type(error).__name__}", 418)

    if direct:
        app.add_middleware(DirectPaths, application=app)
    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/things?n=3"),
        ("POST", "/things?n=3&text=a+b%21&text=c"),
        ("POST", "/things?n=0"),
        ("POST", "/things"),
        ("POST", "/things?n=7"),
        ("POST", "/things?n=8"),
        ("POST", "/things/?n=3"),
        ("GET", "/things"),
        ("GET", "/things/newest"),
        ("GET", "/things/other"),
        ("GET", "/things/a/part/b"),
        ("GET", "/things/a%2Fb/part/c"),
        ("GET", "/things/a/part/"),
        ("DELETE", "/things/a/part/b"),
        ("GET", "/nowhere"),
    ],
)
def test_same_answer_as_through_the_routing(method: str, path: str) -> None:
    ours, theirs = (client_of(direct=direct).request(method, path) for direct in (True, False))

    assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text)
    assert ours.headers == theirs.headers


@pytest.mark.parametrize(
    ("method", "path", "is_direct"),
    [
        ("POST", "/things", True),
        ("GET", "/things/a/part/b", True),
        ("GET", "/things/other", False),  # could be the newest
        ("GET", "/things/newest", False),  # returns no Response
        ("GET", "/things", False),
    ],
)
def test_only_what_could_mean_no_other_route_goes_past_the_routing(
    method: str, path: str, is_direct: bool
) -> None:
    client = client_of(direct=True)
    reached: list[str] = []
    routing = client.app.router.app  # type: ignore[attr-defined]

    async def noted(scope, receive, send):  # type: ignore[no-untyped-def]
        reached.append(scope["path"])
        await routing(scope, receive, send)

    client.app.router.app = noted  # type: ignore[attr-defined]
    client.app.router.middleware_stack = noted  # type: ignore[attr-defined]

    client.request(method, f"{path}?n=1")

    assert (reached == []) is is_direct


_PIECES: Iterable[str] = ("a", "b=", "=", "&", "%41", "+", "c=d", "%", "é", "==")


@given(st.lists(st.sampled_from(list(_PIECES)), max_size=8).map("".join))
def test_a_query_is_split_as_the_standard_library_does(text: str) -> None:
    query = text.encode()

    pairs = split_query(query)

    assert pairs == parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    assert QueryParams(pairs) == QueryParams(query)

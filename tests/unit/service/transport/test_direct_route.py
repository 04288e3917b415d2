"""A direct route answers as FastAPI's own does, right and wrong requests alike."""

from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import Field

from service.transport.direct_route import DirectRoute, _handler, _IndirectError


def app_of(route_class: type[APIRoute]) -> TestClient:
    calls: list[str] = []

    async def first(request: Request) -> None:
        calls.append(f"first {request.method}")

    async def shared(unit: Annotated[str, Query(alias="u", max_length=3)] = "px") -> str:
        calls.append("shared")
        return unit

    async def below(
        unit: Annotated[str, Depends(shared)], n: Annotated[int, Query(ge=1)], w: str | None = None
    ) -> str:
        calls.append("below")
        return f"{n}{unit}{w}"

    router = APIRouter(route_class=route_class)

    @router.get("/{name}/x")
    async def endpoint(
        request: Request,
        name: Annotated[str, Field(max_length=4)],
        size: Annotated[str, Depends(below)],
        unit: Annotated[str, Depends(shared)],
        seed: Annotated[int | None, Query()] = None,
        x_mark: Annotated[str | None, Header(max_length=2)] = None,
    ) -> Response:
        calls.append("endpoint")
        text = f"{name} {size} {unit} {seed} {x_mark} {request.url.path} {calls}"
        calls.clear()
        return Response(text)

    app = FastAPI(dependencies=[Depends(first)])
    app.include_router(router)
    return TestClient(app)


@pytest.mark.parametrize(
    "asked",
    [
        "/abc/x?n=3",
        "/abc/x?n=3&u=mm&seed=7&w=",
        "/abc/x?n=3&n=4",
        "/abc/x",
        "/abc/x?n=0",
        "/abc/x?n=x&seed=y",
        "/abcde/x?n=3",
        "/abcde/x?seed=1.5",
    ],
)
@pytest.mark.parametrize("headers", [{}, {"X-Mark": "ab"}, {"x-mark": "abc"}])
def test_same_answer_as_fastapi(asked: str, headers: dict[str, str]) -> None:
    ours, theirs = (app_of(kind).get(asked, headers=headers) for kind in (DirectRoute, APIRoute))

    assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text)


def test_it_is_laid_out_once() -> None:
    route = DirectRoute("/", _coroutine)

    _handler(route.dependant)


async def _coroutine(n: int = 1) -> Response:
    return Response(str(n))


async def _of_list(n: Annotated[list[int], Query()]) -> Response:
    return Response(str(n))


async def _of_json(n: int) -> dict[str, int]:
    return {"n": n}


def _of_thread(n: int) -> Response:
    return Response(str(n))


@pytest.mark.parametrize("endpoint", [_of_list, _of_json, _of_thread])
def test_what_it_does_not_know_fastapi_handles(endpoint: object) -> None:
    route = DirectRoute("/", endpoint)  # type: ignore[arg-type]

    with pytest.raises(_IndirectError):
        _handler(route.dependant)

    app = FastAPI()
    app.router.routes.append(route)
    assert TestClient(app).get("/?n=3").text in {"[3]", "3", '{"n":3}'}

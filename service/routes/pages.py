"""The pages for people: `/`, `/quality` and `/docs`.

They hold nothing of anybody's, so they need no key: their scripts ask the API with the key that the reader
types in, and what they may do is what the API lets that key do. Nothing on them comes from another machine.
"""

import hashlib
from base64 import b64encode
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final, get_args

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from model_store.image_id import MAX_WALK_FRAMES, MIN_WALK_FRAMES
from service.archives.formats import archive_formats
from service.context import services_of
from service.http.parameters import MAX_N
from worker.contract.messages import DEFAULT_JPEG_QUALITY, GateLevel, ImageFormat

_WEB: Final = Path(__file__).parents[1] / "web"
_NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'"
_PAGE: Final = (
    f"{_NOTHING}; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-src 'self'; frame-ancestors 'none'"
)
"""No script and no style but from our own files."""
_NO_MARKUP: Final = "require-trusted-types-for 'script'"
"""No text becomes markup; Swagger UI's does, which it cleans itself."""
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_PAGES: Final = {
    "/": "index.html",
    "/quality": "quality.html",
    "/quality/frame": "frame.html",
    "/docs": "docs.html",
}


class _Files(StaticFiles):
    """Files that a browser asks about each time, so that an upgrade is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def install_pages(app: FastAPI) -> None:
    """Add the pages, and the files that they are made of, to the application."""
    templates = Environment(
        loader=FileSystemLoader(_WEB / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_WEB / "templates" / "frame.js").read_text()
    for path, name in _PAGES.items():
        policy = content_security(name, script)
        app.add_route(path, _page(templates, name, policy, script), methods=["GET"], include_in_schema=False)
    app.mount("/static/swagger-ui", _Files(packages=[("fastapi_offline", "static")]))
    app.mount("/static", _Files(directory=_WEB / "static"))


def content_security(name: str, frame_script: str) -> str:
    """What a page may load and run.

    A report is a document of its own, with its style in it, and came with a checkpoint: it is shown where
    nothing runs but `frame_script`, and where neither the service nor the reader's key can be reached from.
    """
    if name == "frame.html":
        digest = b64encode(hashlib.sha256(frame_script.encode()).digest()).decode()
        return (
            f"{_NOTHING}; sandbox allow-scripts; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
            "img-src data:; frame-ancestors 'self'"
        )
    return _PAGE if name == "docs.html" else f"{_PAGE}; {_NO_MARKUP}"


def _page(
    templates: Environment, name: str, policy: str, frame_script: str
) -> Callable[[Request], Awaitable[Response]]:
    headers = {**_HEADERS, "Content-Security-Policy": policy}

    async def answer(request: Request) -> Response:
        content = templates.get_template(name).render(
            page=name.removesuffix(".html"),
            version=version("masan"),
            is_keyed=bool(services_of(request).key_ring),
            max_n=MAX_N,
            min_frames=MIN_WALK_FRAMES,
            max_frames=MAX_WALK_FRAMES,
            formats=archive_formats(),
            image_formats=get_args(ImageFormat),
            jpeg_quality=DEFAULT_JPEG_QUALITY,
            gates=[level.value for level in GateLevel],
            default_gate=GateLevel.DEFAULT.value,
            frame_script=frame_script,
        )
        return HTMLResponse(content, headers=headers)

    return answer

"""How a request is asked and, where that is safe, asked again: lost connections, busy servers, restarts."""

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

from masan.errors import ApiError, MasanError, ServerUnreachableError, UnexpectedAnswerError, api_error
from masan.exchange import Ask, Fetch, Flow, Pause

_NOBODY_S: Final = 1.5
"""How long a server is looked for that has never answered: it is more likely absent than restarting."""
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0
_REFUSED: Final = frozenset({429, 503})
"""The request was not carried out: also an unsafe one may be sent again."""
_PROXY: Final = frozenset({502, 504})
"""A proxy speaks, and nobody knows whether the server got it."""
_LATER: Final = frozenset({"idempotency_conflict", "result_not_ready"})
"""Codes of a 409 that goes away by itself."""


@dataclass
class Session:
    """What the requests of one client share.

    retry_for_s: how long a request is repeated at most; 0: never. on_retry: told why and how long it waits.
    was_answered: whether the server has ever answered.
    """

    base_url: str
    retry_for_s: float = 60.0
    on_retry: Callable[[str, float], None] = lambda _reason, _seconds: None
    was_answered: bool = False

    def unreachable(self, error: Exception) -> ServerUnreachableError:
        return ServerUnreachableError(self.base_url, str(error) or type(error).__name__)


class Patience:
    """Whether and how long to wait between attempts: twice as long each time, within a session's limit."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._began = time.monotonic()
        self._pauses = itertools.count()

    def renew(self) -> None:
        """It has come a step further: the limit begins anew."""
        self._began = time.monotonic()
        self._pauses = itertools.count()

    def pause(self, error: MasanError, asked_s: float | None = None, limit_s: float | None = None) -> Pause:
        """Before the next attempt. asked_s: what the server asks for. Raises `error` past the limit."""
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** next(self._pauses))
        # Clients that lost the same server do not come back all at once.
        seconds = longest * random.uniform(0.75, 1.0) if asked_s is None else asked_s
        limit = self._session.retry_for_s if limit_s is None else min(limit_s, self._session.retry_for_s)
        if time.monotonic() - self._began + seconds > limit:
            raise error
        self._session.on_retry(str(error), seconds)
        return Pause(seconds)


def ask(session: Session, request: Ask) -> Flow[httpx.Response]:
    """The answer to a request, asked again while that is safe and may help.

    Raises ApiError for an answer that is an error, ServerUnreachableError.
    """
    patience = Patience(session)
    while True:
        try:
            response: httpx.Response = yield Fetch(request)
            session.was_answered = True
            return checked(response)
        except httpx.TransportError as error:
            yield pause_after_loss(session, patience, error, is_safe=request.is_safe)
        except ApiError as error:
            yield pause_after_refusal(patience, error, is_safe=request.is_safe)


def pause_after_loss(
    session: Session, patience: Patience, error: httpx.TransportError, *, is_safe: bool = True
) -> Pause:
    """Before asking again after a lost connection. Raises ServerUnreachableError if it must not be."""
    was_never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    unreachable = session.unreachable(error)
    unreachable.__cause__ = error
    if not (is_safe or was_never_sent):
        raise unreachable
    is_absent = was_never_sent and not session.was_answered
    return patience.pause(unreachable, limit_s=_NOBODY_S if is_absent else None)


def pause_after_refusal(patience: Patience, error: ApiError, *, is_safe: bool = True) -> Pause:
    """Before asking again after an error answer. Raises it if asking again is not safe or will not help."""
    helps = error.status in _REFUSED or (error.status in _PROXY and is_safe) or error.code in _LATER
    if not helps:
        raise error
    return patience.pause(error, error.retry_after_s)


def ask_json(session: Session, request: Ask) -> Flow[Any]:
    """The JSON of the answer. Raises as `ask`, UnexpectedAnswerError for something else than JSON."""
    response = yield from ask(session, request)
    return json_of(session, response)


def json_of(session: Session, response: httpx.Response) -> Any:
    """Raises UnexpectedAnswerError."""
    try:
        return response.json()
    except ValueError as error:
        media_type = response.headers.get("Content-Type", "no type")
        raise UnexpectedAnswerError(session.base_url, response.url.path, media_type) from error


def checked(response: httpx.Response) -> httpx.Response:
    """Raises ApiError for an error answer that has been read."""
    if response.is_error:
        raise api_error(response.status_code, _problem_of(response), _retry_after(response))
    return response


def _problem_of(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        return problem
    return {"title": f"HTTP {response.status_code} {response.reason_phrase} from {response.url.path}"}


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds; a date, which only proxies send, is left to our own pauses."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None

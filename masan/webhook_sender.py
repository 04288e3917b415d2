"""One attempt to deliver a webhook: the job's public body, signed, to a checked address. Torch-free.

Source of headers and signature: the Standard Webhooks specification.
"""

import base64
import hashlib
import hmac
import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, Final

from redis import Redis

from service.jobs.record import JobRecord
from service.schemas import JobBody
from worker.contract.ledger import JobLedger
from worker.contract.webhook_ledger import Delivery, DeliveryOutcome, WebhookLedger
from worker.contract.webhook_target import (
    Networks,
    Target,
    TargetRefusedError,
    TargetUnresolvedError,
    resolve_target,
)

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 10.0
"""Of a whole attempt, from connecting to the status line."""
PAUSES_S: Final = (5.0, 30.0, 120.0, 600.0, 3600.0)
"""After the first, second, ... attempt that failed; then it is given up."""


class _AttemptFailedError(Exception):
    """It may go better the next time. The message is for the log: no URL, no body."""


class WebhookSender:
    """Delivers what the queue names. networks: see `resolve_target`. clock: epoch seconds."""

    def __init__(
        self,
        redis: Redis,
        networks: Networks = (),
        *,
        clock: Callable[[], float] = time.time,
        pauses_s: Sequence[float] = PAUSES_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.ledger = WebhookLedger(redis)
        self.clock = clock
        self._jobs = JobLedger(redis)
        self._networks = networks
        self._pauses_s = tuple(pauses_s)
        self._timeout_s = timeout_s

    def deliver(self, job_id: str, claim: int) -> DeliveryOutcome | None:
        """Try once; None for a claim that is void by now. Raises RedisError alone."""
        delivery = self.ledger.begin(job_id, claim, now=self.clock())
        if delivery is None:
            return None
        reason = ""
        outcome = DeliveryOutcome.DELIVERED
        try:
            self._attempt(delivery)
        except TargetRefusedError as error:
            outcome, reason = DeliveryOutcome.REFUSED, str(error)
        except (_AttemptFailedError, TargetUnresolvedError) as error:
            outcome, reason = DeliveryOutcome.RETRIED, str(error)
        if outcome is DeliveryOutcome.RETRIED and delivery.attempt > len(self._pauses_s):
            outcome = DeliveryOutcome.GIVEN_UP
        self._record(delivery, outcome, reason)
        return outcome

    def _attempt(self, delivery: Delivery) -> None:
        if delivery.attempt > len(self._pauses_s) + 1:  # each attempt before ended with its process
            raise _AttemptFailedError("its process ended each time")
        body = delivery.body or self.ledger.keep_body(delivery, self._body(delivery.job_id))
        target = resolve_target(delivery.webhook.url, self._networks)
        headers = signed_headers(delivery, body, timestamp=int(self.clock()))
        status = _post(target, headers, body.encode(), self._timeout_s)
        if not 200 <= status < 300:
            raise _AttemptFailedError(f"answered {status}")

    def _body(self, job_id: str) -> str:
        record = self._jobs.record(job_id)
        if record is None:
            raise TargetRefusedError("the job's record is gone")
        job = JobRecord.from_hash(record)
        body = JobBody.of(job, queue_position=None, now=job.finished_at or self.clock())
        return body.model_dump_json(by_alias=True)

    def _record(self, delivery: Delivery, outcome: DeliveryOutcome, reason: str) -> None:
        now = self.clock()
        if outcome is DeliveryOutcome.RETRIED:
            pause_s = self._pauses_s[delivery.attempt - 1]
            held = self.ledger.postpone(delivery, until=now + pause_s, reason=reason)
        else:
            held = self.ledger.settle(delivery, outcome, now=now, reason=reason)
        extra = {"job_id": delivery.job_id, "attempt": delivery.attempt, "outcome": outcome, "reason": reason}
        final_failure = outcome in {DeliveryOutcome.GIVEN_UP, DeliveryOutcome.REFUSED}
        logger.log(
            logging.WARNING if final_failure or not held else logging.INFO,
            "webhook attempted" if held else "webhook attempted under a lost claim",
            extra=extra,
        )


def signed_headers(delivery: Delivery, body: str, *, timestamp: int) -> dict[str, str]:
    """Of one attempt; timestamp in epoch seconds. Without a secret there is no signature."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"masan/{version('masan')}",
        "webhook-id": delivery.message_id,
        "webhook-timestamp": str(timestamp),
    }
    if delivery.webhook.secret is not None:
        key = base64.b64decode(delivery.webhook.secret.removeprefix("whsec_"))
        signed = f"{delivery.message_id}.{timestamp}.{body}".encode()
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


class _PinnedConnection(http.client.HTTPConnection):
    """To the addresses that were checked; the name serves for `Host` and the certificate alone."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        self._target = target
        self._timeout_s = timeout_s
        self._is_cut = False

    def connect(self) -> None:
        """Raises OSError: the last address's, if none answers, or TimeoutError if it was cut meanwhile."""
        share_s = self._timeout_s / len(self._target.addresses)
        for address in self._target.addresses:
            try:
                self.sock = socket.create_connection((address, self._target.port), share_s)
                break
            except OSError as error:
                refused = error
        else:
            raise refused
        self.sock.settimeout(self._timeout_s)
        if self._target.scheme == "https":
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self._target.host)
        if self._is_cut:  # when there was no socket yet, or one that TLS has replaced
            raise TimeoutError

    def cut(self) -> None:
        """End it from another thread: a receiver that sends a byte now and then passes every timeout."""
        self._is_cut = True
        sock = self.sock  # which the other thread may take away
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _post(target: Target, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
    """The answer's status; redirects are not followed, the answer's body is not read."""
    connection = _PinnedConnection(target, timeout_s)
    deadline = threading.Timer(timeout_s, connection.cut)
    deadline.daemon = True
    deadline.start()
    try:
        connection.request("POST", target.path, body, {"Host": target.host_header, **headers})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise _AttemptFailedError(f"no answer: {type(error).__name__}") from error
    finally:
        deadline.cancel()
        connection.close()


_sender: ContextVar[WebhookSender] = ContextVar("sender")
"""RQ calls a function by name with the payload alone; what it works with is its worker's."""


@contextmanager
def webhooks_sent_by(sender: WebhookSender) -> Iterator[None]:
    """Let `deliver_webhook` use this sender inside the block."""
    token = _sender.set(sender)
    try:
        yield
    finally:
        _sender.reset(token)


def deliver_webhook(payload: Mapping[str, Any]) -> str:
    """What the queue names. payload: {job_id, claim}. Returns the outcome, or `superseded`."""
    outcome = _sender.get().deliver(str(payload["job_id"]), int(payload["claim"]))
    return outcome.value if outcome else "superseded"

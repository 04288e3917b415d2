"""An attempt to deliver ends in time, whenever its time is over."""

import socket
import threading
import time
from typing import Any

import pytest

from masan import webhook_sender
from tests.integration.service.webhook_receiver import LOOPBACK, Receiver
from worker.contract.webhook_target import resolve_target

pytestmark = pytest.mark.integration


def test_a_connection_that_comes_too_late_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answers = [0]  # a byte now and then: nothing but the end of the attempt would end it
    connect = socket.create_connection

    def connect_late(*arguments: Any) -> socket.socket:
        time.sleep(0.6)
        return connect(*arguments)

    monkeypatch.setattr(socket, "create_connection", connect_late)
    rescue = threading.Timer(8, receiver.released.set)
    rescue.start()
    try:
        with pytest.raises(webhook_sender._AttemptFailedError, match="TimeoutError"):
            webhook_sender._post(resolve_target(receiver.url, LOOPBACK), {}, b"{}", timeout_s=0.3)
    finally:
        rescue.cancel()

    assert receiver.requests == []

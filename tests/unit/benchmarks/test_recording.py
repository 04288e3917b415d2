"""The reading of recorded requests and of replies, which decides what a benchmark counts."""

import pytest

from scaling.recording import count_commands, errors_in


def test_pipelined_requests_are_counted_one_by_one() -> None:
    set_to_a_request = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$14\r\n*1\r\n$4\r\nPING\r\n\r\n"
    get_nothing = b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n"

    assert count_commands(set_to_a_request + b"*1\r\n$4\r\nEXEC\r\n" + get_nothing) == 3


@pytest.mark.parametrize(
    ("reply", "replies", "errors"),
    [
        (b"+OK\r\n", 1, 0),
        (b":12\r\n$-1\r\n", 2, 0),
        (b"$5\r\na\r\nbc\r\n", 1, 0),
        (b"*2\r\n*1\r\n:1\r\n$1\r\na\r\n", 1, 0),
        (b"%1\r\n+a\r\n:1\r\n_\r\n", 2, 0),
        (b"-NOSCRIPT none\r\n", 1, 1),
        (b"*2\r\n+OK\r\n-ERR of a transaction\r\n+OK\r\n", 2, 1),
    ],
)
def test_whole_replies_are_told_with_their_errors(reply: bytes, replies: int, errors: int) -> None:
    assert errors_in(reply, replies) == errors


@pytest.mark.parametrize(
    ("reply", "replies"),
    [(b"+OK", 1), (b"+OK\r\n", 2), (b"$5\r\nabc", 1), (b"$3\r\nabc", 1), (b"*2\r\n:1\r\n", 1)],
)
def test_reply_that_is_still_on_its_way_is_waited_for(reply: bytes, replies: int) -> None:
    assert errors_in(reply, replies) is None


def test_what_is_no_reply_is_refused() -> None:
    with pytest.raises(ValueError, match="not a reply"):
        errors_in(b"HTTP/1.1 400 Bad Request\r\n", 1)

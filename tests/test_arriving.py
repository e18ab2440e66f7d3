"""Where a request ends, however its bytes come."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from commands.arriving import MOST_HEAD_BYTES, Arriving

MOST = 1000
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\nhello world"
CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;note=x\r\nhello\r\n6\r\n world\r\n0\r\nChecked: yes\r\n\r\n"
)
CHUNKED_PLAIN = b"POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\n\r\n5\r\n\r\n\r\n!\r\n0\r\n\r\n"
WHOLE = (GET, POST, CHUNKED, CHUNKED_PLAIN)


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 200)))
def test_a_request_ends_at_its_last_byte_however_it_is_cut(request: bytes, cuts: list[int]) -> None:
    arriving = Arriving(MOST)
    places = [0, *sorted(min(cut, len(request) - 1) for cut in cuts), len(request) - 1]
    for begin, end in pairwise(places):
        assert arriving.add(request[begin:end]) in ("head", "body")
    assert arriving.add(request[-1:]) == "whole"
    assert arriving.content == request


@pytest.mark.parametrize("request_bytes", WHOLE)
def test_gunicorn_reads_exactly_what_counted_as_whole(request_bytes: bytes) -> None:
    parser = RequestParser(Config(), iter([request_bytes + GET]), ("127.0.0.1", 1))
    body = next(parser).body.read()
    assert body == b"hello world" or request_bytes in (GET, CHUNKED_PLAIN)
    assert parser.unreader.take_buffered() == GET


def test_what_comes_after_a_request_is_kept() -> None:
    arriving = Arriving(MOST)
    assert arriving.add(POST + GET) == "whole"
    assert arriving.content == POST + GET


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 200,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"Name: value\r\n" * 10_000,
    ],
)
def test_a_body_of_more_than_may_be_is_said_at_once(request_bytes: bytes) -> None:
    assert Arriving(MOST).add(request_bytes) == "long body"


def test_a_length_of_many_digits_is_waited_for_as_gunicorn_does() -> None:
    request_bytes = POST.replace(b" 11", b" " + b"0" * 50 + b"11")
    parser = RequestParser(Config(), iter([request_bytes]), ("127.0.0.1", 1))
    assert next(parser).body.read() == b"hello world"
    arriving = Arriving(MOST)
    assert arriving.add(request_bytes[:-1]) == "body"
    assert arriving.add(request_bytes[-1:]) == "whole"


def test_a_head_of_more_than_may_be_is_said() -> None:
    arriving = Arriving(MOST)
    assert arriving.add(b"GET / HTTP/1.1\r\n") == "head"
    assert arriving.add(b"Name: value\r\n" * (MOST_HEAD_BYTES // 13 + 1)) == "long head"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 9000,
        b"\r\n\r\n",
    ],
)
def test_what_makes_no_sense_is_left_to_gunicorn_which_refuses_it_without_reading_on(request_bytes: bytes) -> None:
    assert Arriving(10_000).add(request_bytes) in ("whole", "long body")
    with pytest.raises(Exception, match=r".") as refused:
        next(RequestParser(Config(), iter([request_bytes]), ("127.0.0.1", 1))).body.read()
    assert type(refused.value).__module__ == "gunicorn.http.errors"
    assert type(refused.value).__name__ != "NoMoreData"


def test_who_waits_for_100_continue_is_seen_and_the_field_is_taken_out() -> None:
    head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n"
    arriving = Arriving(MOST)
    assert (arriving.add(head), arriving.waits_to_continue) == ("body", True)
    arriving.add(b"hello world")
    assert arriving.without_expectation() == b"POST / HTTP/1.1\r\nContent-Length: 11\r\n\r\nhello world"
    assert arriving.closing().startswith(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 11\r\n\r\n")
    at_once = Arriving(MOST)
    at_once.add(head + b"hello")
    assert not at_once.waits_to_continue


def test_many_small_pieces_are_not_searched_again_and_again() -> None:
    arriving = Arriving(10_000_000)
    arriving.add(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    pieces = io.BytesIO(b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n")
    state = "body"
    while piece := pieces.read(64):
        assert state == "body"
        state = arriving.add(piece)
    assert state == "whole"

"""A listener that redirects to https, and one that serves ACME challenges: both lanes, with no backend ready."""

from pathlib import Path

import pytest
from support.proxy import GET, OK, Setup, answering, get, lanes, post, proxy
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.errors import ProxyError
from lbproxy.model import ListenerView
from lbproxy.settings import ListenerSettings, RouteSettings, TlsSettings
from lbproxy.wire.head import RequestHead
from lbproxy.worker.task.own_answer import https_address

CHALLENGE = b"/.well-known/acme-challenge/"


def redirecting(**more: object) -> Setup:
    return Setup(more={"redirect": "https", **more})


@lanes
@trio_test(timeout_s=8)
async def test_every_request_is_sent_to_its_address_with_https(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=redirecting()) as lb:
        lb.publish()  # no backend is ready
        client = await lb.client()
        await client.send(get(b"/a/b?c=d") + get(b"/", method=b"HEAD") + post(b"hello"))
        answers = [await client.answer(method) for method in (b"GET", b"HEAD", b"POST")]
        assert [answer.status for answer in answers] == [308] * 3
        assert [answer.get(b"location") for answer in answers] == [
            b"https://a.example/a/b?c=d",
            b"https://a.example/",
            b"https://a.example/",
        ]
        assert answers[0].get(b"content-length") == b"0"
        assert len(answers[0].get(b"x-request-id") or b"") == 32
        records = await lb.wait_records(3)
        assert [(record.status, record.served_by, record.error) for record in records] == [(308, None, None)] * 3
        assert lb.backends[0].received == b""


@lanes
@trio_test(timeout_s=8)
async def test_an_upload_is_redirected_without_being_waited_for(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=redirecting()) as lb:
        client = await lb.client()
        await client.send(get(b"/", b"Content-Length: 1000000", method=b"POST") + bytes(1000))
        answer = await client.answer(b"POST")
        assert (answer.status, answer.get(b"connection")) == (308, b"close")


@lanes
@trio_test(timeout_s=8)
async def test_challenges_go_to_the_pool_where_no_directory_has_them(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=redirecting()) as lb:
        assert (await lb.ask(get(CHALLENGE + b"token"))).status == 200
        assert (await lb.ask(get(b"/.well-known/other"))).status == 308
        assert CHALLENGE in lb.backends[0].received


@lanes
@pytest.mark.parametrize("redirect", [None, "https"])
@trio_test(timeout_s=8)
async def test_challenges_are_served_from_the_directory(lane: str, redirect: str | None, tmp_path: Path) -> None:
    (tmp_path / "token-1_A").write_bytes(b"token-1_A.print")
    setup = Setup(more={"acme_challenges": str(tmp_path), "redirect": redirect})
    async with proxy(lane, answering(OK), setup=setup) as lb:
        lb.publish()
        client = await lb.client()
        for method, body in ((b"GET", b"token-1_A.print"), (b"HEAD", b"")):
            await client.send(get(CHALLENGE + b"token-1_A?x=y", method=method))
            answer = await client.answer(method)
            assert (answer.status, answer.body) == (200, body)
            assert (answer.get(b"content-type"), answer.get(b"content-length")) == (b"text/plain", b"15")
        refused = await lb.ask(get(CHALLENGE + b"token-1_A", b"Content-Length: 0", method=b"POST"), b"POST")
        assert (refused.status, refused.get(b"allow")) == (405, b"GET, HEAD")
        for strange in (b"gone", b"", b"../token-1_A", b"%2e%2e/x", b"token-1_A/"):
            assert (await lb.ask(get(CHALLENGE + strange))).status == 404
        assert lb.backends[0].received == b""


@lanes
@trio_test(timeout_s=8)
async def test_beside_challenges_all_else_goes_where_it_went(lane: str, tmp_path: Path) -> None:
    routes = (RouteSettings("web", path="/routed/"),)
    for setup in (Setup(), Setup(routes=routes)):
        with_directory = Setup(more={"acme_challenges": str(tmp_path)}, routes=setup.routes)
        async with proxy(lane, answering(OK), setup=with_directory) as lb:
            for target in (b"/", b"/routed/", CHALLENGE[:-1]):
                assert (await lb.ask(get(target))).status == 200
            if lane == "express":
                assert not lb.lanes.handed_over


@lanes
@trio_test(timeout_s=8)
async def test_a_body_that_is_waited_for_is_not_where_it_is_redirected(lane: str) -> None:
    async with proxy(lane, answering(OK), setup=redirecting()) as lb:
        client = await lb.client()
        await client.send(get(b"/", b"Content-Length: 5", method=b"PUT"))
        assert (await client.answer(b"PUT")).status == 308


@trio_test(timeout_s=8)
async def test_a_request_without_host_cannot_be_redirected() -> None:
    async with proxy("express", answering(OK), setup=redirecting()) as lb:
        client = await lb.client()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status == 400
        await (asked := await lb.client()).send(GET)
        assert (await asked.answer()).status == 308


# The address


def view(port: int, tls: TlsSettings | None, path: str | None = None) -> ListenerView:
    return ListenerView(1, 1, ListenerSettings("l", Address("", port, path), tls=tls))


def head(host: bytes, target: bytes = b"/x") -> RequestHead:
    return RequestHead(b"GET", target, host, 1, True, None, False, [], {})


@pytest.mark.parametrize(
    ("host", "secured_at", "address"),
    [
        (b"a.example", 443, b"https://a.example/x"),
        (b"a.example", 8443, b"https://a.example/x"),
        (b"a.example:8080", 8443, b"https://a.example:8443/x"),
        (b"a.example:8080", 443, b"https://a.example/x"),
        (b"a.example:8080", None, b"https://a.example/x"),
        (b"a.example:8080", 0, b"https://a.example/x"),
        (b"[::1]", 8443, b"https://[::1]/x"),
        (b"[::1]:8080", 8443, b"https://[::1]:8443/x"),
    ],
)
def test_a_port_is_named_where_the_client_named_one(host: bytes, secured_at: int | None, address: bytes) -> None:
    plain = view(8080, None)
    listeners = (plain,) if secured_at is None else (plain, view(secured_at, TlsSettings()))
    assert https_address(head(host), listeners) == address


def test_a_target_that_is_no_path_becomes_one() -> None:
    assert https_address(head(b"a", b"*"), ()) == b"https://a/"
    with pytest.raises(ProxyError):
        https_address(head(b""), ())


@pytest.mark.parametrize("lane", ["express", "task"])  # without TLS: there an authority does not ask
@pytest.mark.parametrize("more", [{}, {"redirect": "https"}])
@trio_test(timeout_s=8)
async def test_a_challenge_of_our_own_order_is_answered_as_long_as_the_table_has_it(
    lane: str, more: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "token").write_bytes(b"of a file")
    for directory in (None, str(tmp_path)):
        setup = Setup(more={"acme_challenges": directory, **more})
        async with proxy(lane, answering(OK), setup=setup) as lb:
            before = await lb.ask(get(CHALLENGE + b"ours"))
            lb.challenges = (("ours", "ours.print"),)
            lb.publish()
            answer = await lb.ask(get(CHALLENGE + b"ours"))
            assert (answer.status, answer.body) == (200, b"ours.print")
            lb.challenges = ()
            lb.publish(0)
            assert (await lb.ask(get(CHALLENGE + b"ours"))).status == before.status
            if directory is not None:
                assert (await lb.ask(get(CHALLENGE + b"token"))).body == b"of a file"

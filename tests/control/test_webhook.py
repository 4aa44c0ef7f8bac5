"""A webhook as its receiver sees it."""

import hashlib
import hmac
from contextlib import closing

import pytest
import trio
from support.ports import free_port
from support.receiver import receiver
from support.trio_test import trio_test

from lbproxy.control.event_sink import Delivery, NotDelivered
from lbproxy.control.webhook import Webhook
from lbproxy.settings import Secret

EVENT = Delivery("1-1", "reload.done", b'{"event":"reload.done"}')


@trio_test(timeout_s=20)
async def test_an_event_is_a_signed_post():
    with receiver() as hook:
        await Webhook(f"http://127.0.0.1:{hook.port}/hook?to=me", Secret("sesame")).deliver(EVENT)
        await Webhook(f"http://127.0.0.1:{hook.port}", None).deliver(EVENT)
        signed, plain = hook.got
    assert (signed.path, signed.body) == ("/hook?to=me", EVENT.body)
    fields = {name: signed.headers[name] for name in ("Host", "Content-Type", "X-Lbproxy-Event", "X-Lbproxy-Delivery")}
    assert fields == {
        "Host": f"127.0.0.1:{hook.port}",
        "Content-Type": "application/json",
        "X-Lbproxy-Event": "reload.done",
        "X-Lbproxy-Delivery": "1-1",
    }
    signature = hmac.new(b"sesame", EVENT.body, hashlib.sha256).hexdigest()
    assert signed.headers["X-Lbproxy-Signature"] == f"sha256={signature}"
    assert (plain.path, plain.headers["X-Lbproxy-Signature"]) == ("/", None)


@pytest.mark.parametrize(
    ("status", "why"),
    [(302, "the answer was 302: redirects are not followed"), (500, "the answer was 500"), (404, "the answer was 404")],
)
@trio_test(timeout_s=20)
async def test_only_2xx_is_taken_and_a_redirect_is_not_followed(status, why):
    with receiver() as hook:
        hook.answers = [status]
        with pytest.raises(NotDelivered, match=f"^{why}$"):
            await Webhook(f"http://127.0.0.1:{hook.port}/", None).deliver(EVENT)
        assert [one.path for one in hook.got] == ["/"]


@trio_test(timeout_s=20)
async def test_what_answers_nothing_or_nonsense_is_told_in_words():
    hook = Webhook(f"http://127.0.0.1:{free_port()}/sesame", None)
    with pytest.raises(NotDelivered, match=r"^connection refused$"):
        await hook.deliver(EVENT)
    replies = {b"": "closed without an answer", b"rubbish\r\n\r\n": "the answer is malformed: "}
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with closing(listener.socket):
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/sesame"

        async def answer(reply):
            async with await listener.accept() as stream:
                await stream.receive_some(65536)
                await stream.send_all(reply)

        for reply, why in replies.items():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, reply)
                with pytest.raises(NotDelivered, match=f"^{why}"):
                    await Webhook(url, None).deliver(EVENT)

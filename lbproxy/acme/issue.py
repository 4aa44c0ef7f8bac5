"""One order, from the account to the certificate (RFC 8555): blocking, in a thread of its own.

Knows the ACME library. What the authority will ask for is given to `serve`, which returns when it is answered.
"""

import datetime
import threading
import time
from collections.abc import Callable
from typing import Any

from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import DeserializationError
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from lbproxy import __version__
from lbproxy.acme.account import account_key, register
from lbproxy.acme.certificate_file import Lifetime, check_answer, write_whole
from lbproxy.acme.failure import Failure, failure_of
from lbproxy.acme.messages import Order
from lbproxy.acme.placeholder import key_pem

ANSWER_S = 30
ORDER_S = 300.0

Answers = tuple[tuple[str, str], ...]
_making_account = threading.Lock()  # two orders of one account must not both make its key


class NotIssued(Exception):
    def __init__(self, failure: Failure, retry_after_s: float | None = None) -> None:
        super().__init__(failure.why)
        self.failure = failure
        self.retry_after_s = retry_after_s


def issue(order: Order, serve: Callable[[Answers], None]) -> Lifetime:
    """Order it and write it into its file. Raises NotIssued."""
    network = _Network()
    try:
        return _issue(order, network, serve)
    except NotIssued:
        raise
    except Exception as exc:  # of a library that reads what a server sends
        raise NotIssued(failure_of(exc), network.retry_after_s) from exc


def _issue(order: Order, network: "_Network", serve: Callable[[Answers], None]) -> Lifetime:
    with _making_account:
        key = account_key(order)
        acme = network.connect(order, key)
        register(acme, order.email)
    private_key = key_pem(ec.generate_private_key(ec.SECP256R1()))
    placed = acme.new_order(crypto_util.make_csr(private_key, list(order.domains)))
    pending = [
        _http_challenge(authorization)
        for authorization in placed.authorizations
        if authorization.body.status == messages.STATUS_PENDING
    ]
    deadline = datetime.datetime.now() + datetime.timedelta(seconds=ORDER_S)
    if pending:
        serve(tuple((one.chall.encode("token"), one.chall.validation(key)) for one in pending))
    for one in pending:
        acme.answer_challenge(one, one.chall.response(key))
    placed = acme.poll_and_finalize(placed, deadline)
    chain = placed.fullchain_pem.encode()
    lifetime = check_answer(chain, order.domains, time.time())
    write_whole(order.file, chain.rstrip() + b"\n" + private_key)
    return lifetime


def _http_challenge(authorization: messages.AuthorizationResource) -> messages.ChallengeBody:
    for one in authorization.body.challenges:
        if isinstance(one.chall, challenges.HTTP01):
            return one
    name = authorization.body.identifier.value
    raise NotIssued(Failure(f"the authority offers no challenge by HTTP for {name}", is_refused=True))


class _Network:
    """`retry_after_s`: what the last answer that was an error asked for."""

    def __init__(self) -> None:
        self.retry_after_s: float | None = None

    def connect(self, order: Order, key: JWKEC) -> client.ClientV2:
        verify: Any = order.ca if order.ca is not None else True  # of requests: a path will do
        net = client.ClientNetwork(
            key, alg=ES256, verify_ssl=verify, user_agent=f"lbproxy/{__version__}", timeout=ANSWER_S
        )
        net.session.hooks["response"].append(self._note)
        try:
            return client.ClientV2(client.ClientV2.get_directory(order.server, net), net)
        except DeserializationError as exc:
            raise errors.ClientError(f"{order.server} is no ACME directory") from exc

    def _note(self, response: Any, *args: Any, **kwargs: Any) -> None:
        self.retry_after_s = None
        if not response.ok and "Retry-After" in response.headers:
            at = client.ClientV2.retry_after(response, 0)
            self.retry_after_s = max((at - datetime.datetime.now()).total_seconds(), 0.0)

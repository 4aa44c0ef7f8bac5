import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.certificates import pem_file

from lbproxy.tls.contexts import BadCertificate, Pair, ServerContexts, ServerRules, client_context


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pem_file(tmp_path_factory.mktemp("tls"), "a.example")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pem_file(tmp_path_factory.mktemp("tls"), "b.example")


@contextmanager
def opened(*paths: Path) -> Iterator[list[int]]:
    """As control hands them on: memfds, read to their end."""
    fds = [os.memfd_create("test") for _ in paths]
    for fd, path in zip(fds, paths, strict=True):
        os.write(fd, path.read_bytes())
    yield fds
    for fd in fds:
        os.close(fd)


def test_a_client_verifies_certificate_and_name(pem: Path) -> None:
    context = client_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    own = client_context(str(pem))
    assert len(own.get_ca_certs()) == 1, "these authorities and no others"
    trusting = client_context(verify=False)
    assert (trusting.verify_mode, trusting.check_hostname) == (ssl.CERT_NONE, False)


def test_a_server_is_modern_and_orders_the_ciphers_itself(pem: Path) -> None:
    with opened(pem) as (fd,):
        contexts = ServerContexts([Pair(fd, fd)])
    contexts.follow(ServerRules(min_version="1.3"))
    context = contexts.first
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    wanted = ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.options & wanted == wanted
    old = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert old[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert all(name.startswith("ECDHE-") and ("GCM" in name or "POLY1305" in name) for name in old)


def test_a_name_is_found_exactly_then_by_its_wildcard_then_the_first_certificate_serves(pem: Path) -> None:
    with opened(pem) as (fd,):
        pairs = [
            *(Pair(fd, fd, ("first.example",)), Pair(fd, fd, ("*.example",))),
            *(Pair(fd, fd, ("www.example", "first.example")), Pair(fd, fd, ("*.www.example",))),
        ]
        contexts = ServerContexts(pairs)
    first, wild, exact = contexts.first, contexts.named("other.example"), contexts.named("www.example")
    assert len({first, wild, exact}) == 3
    assert contexts.named("WWW.Example.") is exact
    assert contexts.named("a.www.example") not in (first, wild, exact)
    for name in (None, "first.example", "a.b.example", "example", "", "*", "nobody.test"):
        assert contexts.named(name) is first, name


def test_the_key_of_another_certificate_is_refused(pem: Path, other: Path) -> None:
    with opened(pem, other) as fds, pytest.raises(BadCertificate, match="not that of the certificate"):
        ServerContexts([Pair(*fds)])


def test_a_key_with_a_pass_phrase_is_an_error_and_asks_nobody(pem: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkcs8", "-topk8", "-in", str(pem), "-out", str(locked), "-passout", "pass:secret"]
    subprocess.run(command, check=True)
    with opened(pem, locked) as fds, pytest.raises(BadCertificate, match="has a pass phrase"):
        ServerContexts([Pair(*fds)])


@pytest.mark.parametrize(
    "broken", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_an_error_in_words(pem: Path, tmp_path: Path, broken: bytes) -> None:
    file = tmp_path / "broken.pem"
    file.write_bytes(broken)
    with opened(file, pem) as fds:
        with pytest.raises(BadCertificate, match="cannot be read: "):
            ServerContexts([Pair(*fds)])
        with pytest.raises(BadCertificate, match="the client authorities cannot be read: "):
            ServerContexts([Pair(fds[1], fds[1])], client_ca=fds[0])


def test_nothing_is_no_server(pem: Path) -> None:
    with pytest.raises(BadCertificate):
        ServerContexts([])


def test_client_certificates_are_asked_for_as_the_rules_say(pem: Path) -> None:
    with opened(pem) as (fd,):
        contexts = ServerContexts([Pair(fd, fd)], client_ca=fd)
    for client_auth, mode in (("require", ssl.CERT_REQUIRED), ("request", ssl.CERT_OPTIONAL), (None, ssl.CERT_NONE)):
        contexts.follow(ServerRules(client_auth=client_auth))
        assert contexts.first.verify_mode is mode

"""ClientHellos of real clients at every cut, in records of every size; and what is none."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.browser import FLAGS
from support.each import each

from lbproxy.wire.client_hello import MOST_BYTES, ClientHello, ClientHelloReader, NotClientHello, Spoken, needs_no_look

NAME = "app.example.com"
TLS12, TLS13 = 0x0303, 0x0304


def read(data: bytes) -> ClientHello | None:
    return ClientHelloReader().feed(data)


def of_python(name: str | None = NAME, protocols: tuple[str, ...] = (), *, least: str = "TLSv1_2") -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion[least]
    if protocols:
        context.set_alpn_protocols(list(protocols))
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    return sent.read()


def message_of(hello: bytes) -> bytes:
    """The handshake message of a hello in one record."""
    return hello[5:]


def in_records(message: bytes, size: int) -> bytes:
    parts = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


def extension(number: int, value: bytes) -> bytes:
    return number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value


def hello_with(*extensions: bytes, behind: bytes = b"", session: bytes = b"", ciphers: bytes = b"\x13\x01") -> bytes:
    """A hello of our own: what no library would send."""
    body = b"\x03\x03" + bytes(32) + bytes((len(session),)) + session
    body += len(ciphers).to_bytes(2, "big") + ciphers + b"\x01\x00"
    listed = b"".join(extensions)
    body += len(listed).to_bytes(2, "big") + listed + behind
    return in_records(b"\x01" + len(body).to_bytes(3, "big") + body, 2**14)


def name_list(*names: tuple[int, bytes]) -> bytes:
    listed = b"".join(bytes((kind,)) + len(name).to_bytes(2, "big") + name for kind, name in names)
    return len(listed).to_bytes(2, "big") + listed


# Real clients


CLIENTS = {
    "curl": ["curl", "-sk", "--max-time", "5", "--resolve", f"{NAME}:{{port}}:127.0.0.1", f"https://{NAME}:{{port}}/"],
    "openssl": [
        *("openssl", "s_client", "-connect", "127.0.0.1:{port}"),
        *("-servername", NAME, "-alpn", "h2,http/1.1"),
    ],
    "node": [
        "node",
        "-e",
        f"require('tls').connect({{{{port: {{port}}, host: '127.0.0.1', servername: '{NAME}',"
        "ALPNProtocols: ['h2', 'http/1.1']}}).on('error', () => 0)",
    ],
    "chromium": [
        "chromium",
        *(flag for flag in FLAGS if flag != "about:blank"),
        "--user-data-dir={dir}",
        f"--host-resolver-rules=MAP {NAME} 127.0.0.1",
        f"https://{NAME}:{{port}}/",
    ],
}


def heard(client: str, folder: Path) -> bytes:
    """What a client says first. It is let go of then."""
    words = CLIENTS[client]
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {client} here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        told = {"port": server.getsockname()[1], "dir": folder}
        process = subprocess.Popen(
            [word.format_map(told) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            sock = server.accept()[0]
            with sock:
                sock.settimeout(20)
                data, reader = b"", ClientHelloReader()
                while True:
                    data += (more := sock.recv(1 << 16))
                    assert more
                    if reader.feed(more) is not None:
                        return data
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("client", CLIENTS)
def test_the_hello_of_a_client_is_known_behind_its_last_byte_and_not_before(client: str, tmp_path: Path) -> None:
    data = heard(client, tmp_path)
    hello = read(data)
    assert hello is not None
    assert hello.server_name == NAME
    assert hello.protocols == (b"h2", b"http/1.1")
    assert {TLS12, TLS13} <= set(hello.versions)
    for cut in range(len(data)):
        reader = ClientHelloReader()
        assert reader.feed(data[:cut]) is None
        assert reader.feed(data[cut:]) == hello


@each([1, 2, 7, 100, 2**14])
def test_a_hello_in_records_of_any_size_is_the_same_hello(size: int) -> None:
    data = of_python(protocols=("http/1.1", "h2"))
    split = in_records(message_of(data), size)
    assert read(split) == read(data) == ClientHello(NAME, (b"http/1.1", b"h2"), (TLS13, TLS12))
    reader = ClientHelloReader()
    said = [reader.feed(split[at : at + 1]) for at in range(len(split))]
    assert said == [None] * (len(split) - 1) + [read(data)]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.lists(st.integers(0, 900), max_size=6))
def test_neither_records_nor_cuts_change_a_hello(sizes: list[int], cuts: list[int]) -> None:
    data = of_python()
    message, split, at = message_of(data), b"", 0
    for size in (*sizes, len(message)):
        if at < len(message):
            split += in_records(message[at : at + size], size)
            at += size
    reader, said = ClientHelloReader(), []
    marks = sorted({min(cut, len(split)) for cut in cuts} | {0, len(split)})
    for begin, end in pairwise(marks):
        said.append(reader.feed(split[begin:end]))
    assert said[-1] == read(data)
    assert not any(said[:-1])


def test_without_name_and_protocols_neither_is_known() -> None:
    assert read(of_python(None)) == ClientHello(None, None, (TLS13, TLS12))


def test_bytes_behind_a_hello_change_nothing() -> None:
    data = of_python()
    for behind in (b"\x17\x03\x03\x00\x05hello", b"\x16", b"GET / HTTP/1.1\r\n", bytes(MOST_BYTES)):
        assert read(data + behind) == read(data)


# What a hello says


@each(
    [
        (b"App.EXAMPLE.com", NAME),
        (b"app.example.com.", NAME),
        (b"xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        (b"under_score.example", "under_score.example"),
        (b"10.0.0.1", "10.0.0.1"),
        (b"a\0.example", None),
        (b"m\xc3\xbcnchen.example", None),
        (b"a b", None),
        (b".", None),
        (b"a" * 256, None),
    ]
)
def test_a_name_is_in_lower_case_and_a_strange_one_is_none(case: tuple[bytes, str | None]) -> None:
    sent, name = case
    hello = read(hello_with(extension(0, name_list((0, sent)))))
    assert hello is not None
    assert hello.server_name == name


def test_names_of_an_unknown_kind_are_passed_over() -> None:
    assert read(hello_with(extension(0, name_list((7, b"what"), (0, b"a.example"))))) == ClientHello(
        "a.example", None, (TLS12,)
    )


def test_versions_are_those_of_the_extension_where_it_is_there() -> None:
    grease = b"\x06\x0a\x0a\x03\x04\x03\x03"
    assert read(hello_with(extension(43, grease))) == ClientHello(None, None, (0x0A0A, TLS13, TLS12))
    assert read(hello_with()) == ClientHello(None, None, (TLS12,))


def test_a_hello_without_extensions_is_one() -> None:
    body = b"\x03\x01" + bytes(32) + b"\x00\x00\x02\x00\x2f\x01\x00"
    assert read(in_records(b"\x01" + len(body).to_bytes(3, "big") + body, 100)) == ClientHello(None, None, (0x0301,))


# What is none


BROKEN = {
    "a record of length zero": b"\x16\x03\x01\x00\x00",
    "a record that is too long": b"\x16\x03\x01\x40\x01\x01",
    "another version of records": b"\x16\x02\x00\x00\x05",
    "a ServerHello": in_records(b"\x02\x00\x00\x26" + bytes(38), 100),
    "an alert inside": of_python()[:100].replace(b"\x16\x03\x01", b"\x16\x03\x01\x00\x02\x01\x00\x15\x03\x01", 1),
    "a body that is cut off": in_records(b"\x01\x00\x00\x05" + bytes(5), 100),
    "a body that is empty": in_records(b"\x01\x00\x00\x00", 100),
    "bytes behind the extensions": hello_with(behind=b"\x00"),
    "an odd number of bytes of ciphers": hello_with(ciphers=b"\x13\x01\x00"),
    "no ciphers": hello_with(ciphers=b""),
    "a session of 33 bytes": hello_with(session=bytes(33)),
    "an extension twice": hello_with(extension(0, name_list((0, b"a"))), extension(0, name_list((0, b"a")))),
    "two names": hello_with(extension(0, name_list((0, b"a"), (0, b"b")))),
    "an empty name": hello_with(extension(0, name_list((0, b"")))),
    "no names": hello_with(extension(0, b"\x00\x00")),
    "an empty extension": hello_with(extension(0, b"")),
    "bytes behind the names": hello_with(extension(0, name_list((0, b"a")) + b"\x00")),
    "a name that is cut off": hello_with(extension(0, b"\x00\x04\x00\x00\x09a")),
    "an empty protocol": hello_with(extension(16, b"\x00\x01\x00")),
    "no protocols": hello_with(extension(16, b"\x00\x00")),
    "half a version": hello_with(extension(43, b"\x03\x03\x04\x03")),
    "one that never ends": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(MOST_BYTES),
    "one that never ends, in small records": in_records(b"\x01\xff\xff\xff" + bytes(MOST_BYTES), 1),
}


@each(BROKEN)
def test_a_broken_hello_is_refused(name: str) -> None:
    with pytest.raises(NotClientHello) as refused:
        read(BROKEN[name])
    assert refused.value.spoken is Spoken.BROKEN_TLS


OTHERS = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Spoken.HTTP, 5),
    (b"OPTIONS * HTTP/1.1\r\n", Spoken.HTTP, 9),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Spoken.HTTP, 5),
    (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", Spoken.SSL2, 3),
    (b"\x80\x2e\x07", Spoken.OTHER, 3),
    (b"SSH-2.0-OpenSSH_9.2\r\n", Spoken.OTHER, 4),
    (b"\x15\x03\x01\x00\x02\x02\x28", Spoken.OTHER, 1),
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Spoken.OTHER, 1),
    (b"\r\n\r\n\x00\r\nQUIT\n", Spoken.OTHER, 1),
    (b"A" * 70, Spoken.OTHER, 65),
]


@each(OTHERS)
def test_what_is_no_tls_is_known_by_its_first_bytes(case: tuple[bytes, Spoken, int]) -> None:
    data, spoken, needed = case
    reader = ClientHelloReader()
    for at in range(needed - 1):
        assert reader.feed(data[at : at + 1]) is None
    for whole in (data, data[:needed]):
        with pytest.raises(NotClientHello) as refused:
            read(whole)
        assert refused.value.spoken is spoken
    with pytest.raises(NotClientHello):
        reader.feed(data[needed - 1 : needed])


def _bytes() -> Iterator[bytes]:
    yield of_python(protocols=("h2",))
    yield from BROKEN.values()


@given(st.sampled_from([*_bytes()]), st.data())
def test_a_bent_hello_is_read_or_refused_and_nothing_else(data: bytes, draw: st.DataObject) -> None:
    bent = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(bent)))
        bent[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    try:
        hello = read(bytes(bent))
    except NotClientHello:
        return
    assert hello is None or hello.server_name is None or hello.server_name == hello.server_name.lower()


@pytest.mark.parametrize("offered", [(), ("http/1.1",), ("h2", "http/1.1"), ("h2",)])
def test_a_hello_that_decides_nothing_is_known_at_a_glance_but_only_when_it_is_whole(offered: tuple[str, ...]) -> None:
    data = of_python(protocols=offered)
    assert needs_no_look(data, [b"http/1.1"]) == (offered != ("h2",))
    assert needs_no_look(data, [b"h2"]) == ("h2" in offered or not offered)
    for cut in range(len(data)):
        assert not needs_no_look(data[:cut], [b"http/1.1"])
    assert not needs_no_look(in_records(message_of(data), 50), [b"http/1.1"]), "a reader has to put it together"


@pytest.mark.parametrize(
    "data", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x15\x03\x01\0\x02\x01\0", b"\x16\x03\x01\0\x04\x02\0\0\0"]
)
def test_what_is_no_hello_is_left_to_the_reader(data: bytes) -> None:
    assert not needs_no_look(data, [b"http/1.1"])

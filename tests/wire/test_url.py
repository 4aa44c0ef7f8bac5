import pytest

from lbproxy.address import Address
from lbproxy.wire.url import HttpUrl


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:9000/hook", HttpUrl(False, Address("127.0.0.1", 9000), "127.0.0.1:9000", "/hook")),
        ("https://example.org", HttpUrl(True, Address("example.org", 443), "example.org", "/")),
        ("http://[::1]/a?b=c&d", HttpUrl(False, Address("::1", 80), "[::1]", "/a?b=c&d")),
        ("HTTP://h:0080?x", HttpUrl(False, Address("h", 80), "h:0080", "/?x")),
    ],
)
def test_a_url_is_an_address_a_host_and_a_target(text: str, url: HttpUrl) -> None:
    assert HttpUrl.parse(text) == url


@pytest.mark.parametrize(
    "text",
    [
        *("", "hook", "ftp://h/", "http://", "http:///x", "http://u:SESAME@h/", "http://h/#f", "http://h/ x"),
        *("http://h/\r\n", "http://h:x/SESAME", "http://h:99999/SESAME", "http://[::1/SESAME", "http://h\u00e4/"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"URL") as refused:
        HttpUrl.parse(text)
    assert "SESAME" not in str(refused.value)

"""Names that an authority is asked for, and the file of their certificate."""

import pytest

from lbproxy.config.acme_values import certificate_file, domain, email, server
from lbproxy.settings import AcmeSettings


def test_a_name_is_written_as_the_dns_has_it() -> None:
    assert domain("WWW.Example.com.") == "www.example.com"
    assert domain("xn--bcher-kva.example") == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("*.a.example", "a wildcard needs a challenge in the DNS"),
        ("bücher.example", "perhaps 'xn--bcher-kva.example'"),
        (f"{'ü' * 70}.example", "is not ASCII"),
        ("127.0.0.1", "is an IP address"),
        ("[::1]", "is an IP address"),
        ("2001:db8::1", "is an IP address"),
        ("localhost", "expected a whole host name"),
        ("a_b.example", "expected a whole host name"),
        ("-a.example", "expected a whole host name"),
        ("a..example", "expected a whole host name"),
        ("a.example:80", "expected a whole host name"),
        ("https://a.example", "expected a whole host name"),
        ("../a.b/c", "expected a whole host name"),
        (f"{'a' * 64}.example", "expected a whole host name"),
        (".".join(["a" * 50] * 6), "expected a whole host name"),
        ("1.2.3", "expected a whole host name"),
        ("", "expected a whole host name"),
        (7, "expected a host name"),
    ],
)
def test_what_no_authority_would_take_is_refused(name: object, said: str) -> None:
    with pytest.raises(ValueError, match="(?s)" + said.replace(".", r"\.")):
        domain(name)


def test_an_address_and_a_server_are_what_they_say() -> None:
    assert email("ops@a.example") == "ops@a.example"
    assert server("https://127.0.0.1:14000/dir") == "https://127.0.0.1:14000/dir"
    for wrong in ("ops", "a@b@c", "a b@c", "mailto:", 1):
        with pytest.raises(ValueError, match="expected an address"):
            email(wrong)
    for wrong in ("http://a/dir", "https://", "https://u:p@a/dir", "a", None):
        with pytest.raises(ValueError, match="expected the URL"):
            server(wrong)


def test_other_domains_or_another_server_are_another_file() -> None:
    one = AcmeSettings(("a.example", "b.example"))
    files = {
        certificate_file(acme, "/state")
        for acme in (one, AcmeSettings(("a.example",)), AcmeSettings(one.domains, server="https://x/"))
    }
    assert len(files) == 3
    assert certificate_file(AcmeSettings(one.domains, email="a@b", ca="/ca"), "/state") in files
    assert all(file.startswith("/state/acme/a.example-") for file in files)
    longest = AcmeSettings((".".join(["a" * 61] * 4),))
    assert len(certificate_file(longest, "").rpartition("/")[2]) < 255

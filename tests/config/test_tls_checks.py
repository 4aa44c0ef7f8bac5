"""What contradicts itself in the TLS keys is said with its line."""

import pytest

LISTENER = """[[listener]]
address = ":8443"
{keys}
[pool.web]
command = "true {{port}}"
"""
PAIR = 'cert = "a.pem", key = "a.key"'


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("tls = {}", "3:1: error: listener.tls: needs cert and key, or certs, or directory"),
        ('tls = { cert = "a.pem" }', "3:1: error: listener.tls: cert needs key beside it"),
        ('tls = { key = "a.key" }', "3:1: error: listener.tls: key needs cert beside it"),
        (
            f'tls = {{ {PAIR}, directory = "d" }}',
            "3:40: error: listener.tls.directory: cannot be given together with cert and key (line 3)",
        ),
        (
            'tls = { certs = [{ cert = "a", key = "b" }], directory = "d" }',
            "3:46: error: listener.tls.directory: cannot be given together with certs (line 3)",
        ),
        ("tls = { certs = [] }", "3:9: error: listener.tls.certs: is empty"),
        (
            f'tls = {{ {PAIR}, client_auth = "request" }}',
            "3:40: error: listener.tls.client_auth: needs client_ca",
        ),
        (f'tls = {{ {PAIR}, client_auth = "yes" }}', "expected require or request, got 'yes'"),
        (f'tls = {{ {PAIR}, min_version = "1.1" }}', "expected 1.2 or 1.3, got '1.1'"),
        (f"tls = {{ {PAIR}, min_version = 1.2 }}", 'expected "1.2" or "1.3", got 1.2'),
        ("tls = true", "listener.tls: expected a table"),
        ("tls = { acme = {} }", "3:9: error: 'domains' is missing in [listener.tls.acme]"),
        ("tls = { acme = { domains = [] } }", "3:18: error: listener.tls.acme.domains: is empty"),
        ('tls = { acme = { domains = ["a.b", "A.b"] } }', "listener.tls.acme.domains: 'a.b' is there twice"),
        (f'tls = {{ {PAIR}, acme = {{ domains = ["a.b"] }} }}', "acme: cannot be given together with cert and key"),
        ('tls = { acme = { domains = ["a.b"] }, directory = "d" }', "acme: cannot be given together with directory"),
        (f"tls = {{ acme = {{ domains = {[f'a{n}.b' for n in range(101)]} }} }}", "has 101 names"),
        ("protocols = []", "3:1: error: listener.protocols: is empty"),
        ('protocols = ["h2"]', "'h2' needs tls (without it HTTP/2 is 'h2c')"),
        ('protocols = ["http/1.1", "http/1.1"]', "'http/1.1' is there twice"),
        ('protocols = ["http/3"]', "expected h2, http/1.1 or h2c, got 'http/3'"),
        ('protocols = "http/1.1"', "expected a list"),
        (f'tls = {{ {PAIR} }}\nprotocols = ["h2c"]', "'h2c' is HTTP/2 without TLS (with it HTTP/2 is 'h2') (line 3)"),
        ('mode = "tcp"\nprotocols = ["h2"]', 'means something only with mode = "http" (line 3)'),
    ],
)
def test_it_is_said_with_its_line(report, keys, said):
    assert said in report(LISTENER.format(keys=keys))


def test_one_mistake_is_said_once(report):
    assert report(LISTENER.format(keys='tls = { cert = "a.pem", kye = "a.key" }')).endswith("\n1 error")
    assert report(LISTENER.format(keys='tls = { cretdir = "d" }')).count("error:") <= 2
    assert report(LISTENER.format(keys="tls = {}")).endswith("\n1 error")


def test_admin_is_looked_at_too(report):
    admin = '[admin]\naddress = "127.0.0.1:1"\ntls = { cert = "a.pem" }'
    assert "admin.tls: cert needs key beside it" in report(LISTENER.format(keys="") + admin)


@pytest.mark.parametrize("address", [":8443", "unix:a.sock", "fd:0"])
@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_every_kind_of_listener_may_have_tls(loaded, address, mode):
    text = LISTENER.format(keys=f'tls = {{ {PAIR} }}\nmode = "{mode}"').replace(":8443", address)
    (listener,) = loaded(text).listeners
    assert listener.tls is not None
    assert listener.protocols == (("h2", "http/1.1") if mode == "http" else ("http/1.1",))


@pytest.mark.parametrize("protocols", [("h2c",), ("http/1.1", "h2c"), ("http/1.1",), None])
def test_a_plain_listener_speaks_http2_where_the_file_says_so(loaded, protocols):
    keys = "" if protocols is None else f"protocols = {list(protocols)}"
    assert loaded(LISTENER.format(keys=keys)).listeners[0].protocols == (protocols or ("http/1.1",))

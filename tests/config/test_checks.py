import tomllib

import pytest

from lbproxy.config.checks import check

WEB = "[pool.web]\ncommand = 'a'\n"
GRPC = WEB + "protocol = 'h2c'\nhealth.grpc = true\n"
API = "[pool.api]\ntargets = ['127.0.0.1:1']\n"
LISTENER = "[[listener]]\naddress = ':80'\n"


def messages(text: str) -> list[str]:
    return [finding.message for finding in check(tomllib.loads(text))]


@pytest.mark.parametrize(
    "text",
    [
        LISTENER + WEB,
        LISTENER + "pool = 'web'\n" + WEB + API,
        LISTENER + "[[route]]\npool = 'api'\n" + WEB + API,
        LISTENER + "[[listener]]\naddress = ':81'\n" + WEB,
        "[[listener]]\naddress = '0.0.0.0:80'\n[[listener]]\naddress = '[::]:80'\n" + WEB,
        "[[listener]]\naddress = '127.0.0.1:80'\n[[listener]]\naddress = '127.0.0.2:80'\n" + WEB,
        "[[listener]]\naddress = 'unix:/a'\n[[listener]]\naddress = 'unix:/b'\n" + WEB,
        LISTENER + WEB + "bind = 'fd'\nhealth.path = '/'\n",
        LISTENER + GRPC + "bind = 'fd'\n",
        LISTENER + WEB + "balance = 'hash'\nhash_key = 'path'\n",
        LISTENER + WEB + "balance = 'hash'\nslow_start = '0s'\nsticky = {}\n",
        LISTENER + "mode = 'tcp'\npool = 'web'\n[[listener]]\naddress = ':81'\n" + WEB + "sticky = {}\n",
        LISTENER + "[pool.web]\ncommand = 'a {socket} {{x}} {slot} {generation}'\nbind = 'unix'",
        LISTENER + "mode = 'tcp'\n[[route]]\npool = 'web'\nhost = 'a.b'\n" + WEB + API,
        LISTENER + "redirect = 'https'\nacme_challenges = 'acme'\n" + WEB + API,
        LISTENER + "[pool.web]\ncommand = 'a'\n[pool.web.restart.backoff]\nfirst = '30s'",
    ],
)
def test_what_fits_together_is_left_alone(text: str):
    assert messages(text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WEB, 'no listener: write [[listener]] and below it address = ":8080"'),
        (LISTENER, "no pool: write [pool.web] and below it a command or targets"),
        (LISTENER + "pool = 'wbe'\n" + WEB, "no pool is called 'wbe' (did you mean 'web'?)"),
        (LISTENER + "[[route]]\npool = 'x'\n" + WEB, "no pool is called 'x' (there is: web)"),
        (LISTENER + WEB + API, "'pool' is missing in [[listener]]: there are several (web, api) and no route"),
        (
            LISTENER + "mode = 'tcp'\n[[route]]\npool = 'web'\n" + WEB + API,
            "'pool' is missing in [[listener]]: a tcp listener needs one when there are several (web, api)",
        ),
        (
            LISTENER + "mode = 'tcp'\nredirect = 'https'\n" + WEB,
            'means something only for HTTP, and mode is "tcp"',
        ),
        (
            LISTENER + "mode = 'tcp'\nacme_challenges = '/var'\n" + WEB,
            'means something only for HTTP, and mode is "tcp"',
        ),
        (
            LISTENER + "redirect = 'https'\ntls = { cert = 'a', key = 'b' }\n" + WEB,
            "would send clients in a circle: this listener speaks https itself",
        ),
        (
            LISTENER + "hsts = '180d'\n" + WEB,
            "needs tls: browsers believe it over https only (RFC 6797, 8.1)",
        ),
        (LISTENER * 2 + WEB, "':80' is the same address as ':80'"),
        (LISTENER + "[[listener]]\naddress = '127.0.0.1:80'\n" + WEB, "'127.0.0.1:80' is covered by ':80'"),
        (
            "[[listener]]\naddress = '127.0.0.1:80'\n[[listener]]\naddress = '0.0.0.0:80'\n" + WEB,
            "'0.0.0.0:80' covers '127.0.0.1:80'",
        ),
        (
            "[[listener]]\naddress = '[::1]:80'\n[[listener]]\naddress = '[::]:80'\n" + WEB,
            "'[::]:80' covers '[::1]:80'",
        ),
        (
            "[[listener]]\naddress = 'unix:/a'\n[[listener]]\naddress = 'unix:/a'\n" + WEB,
            "'unix:/a' is the same address as 'unix:/a'",
        ),
        (
            LISTENER + "[[listener]]\naddress = 'fd:a'\n" * 2 + WEB,
            "'fd:a' is the same address as 'fd:a'",
        ),
        (
            LISTENER + "name = 'a'\n[[listener]]\naddress = ':81'\nname = 'a'\n" + WEB,
            "another listener is called 'a' too",
        ),
        (
            LISTENER + "[pool.'My.Web']\ncommand = 'a'\n",
            "the name of a pool consists of a-z, 0-9, _ and -, got 'My.Web'",
        ),
        (
            LISTENER + "[pool.access]\ncommand = 'a'\n",
            "a pool cannot be called 'access': that is what the access log is called",
        ),
        (LISTENER + "[pool.web]\n", "'command' or 'targets' is missing in [pool.web]"),
        (LISTENER + WEB + "targets = ['a:1']\n", "a pool has either a command or targets, not both"),
        (LISTENER + WEB + "env.'A=B' = ''\n", "expected the name of an environment variable, got 'A=B'"),
        (LISTENER + "[pool.web]\ntargets = []\n", "is empty"),
        (LISTENER + "[pool.web]\ntargets = ['a:1', 'a:1']\n", "'a:1' is there twice"),
        (LISTENER + WEB + "upgrades = ['websocket', 'x', 'WebSocket']\n", "'WebSocket' is there twice"),
        (LISTENER + 'forwarded = true\nmode = "tcp"\n' + WEB, 'means something only for HTTP, and mode is "tcp"'),
        (LISTENER + API + "size = 1\n", "cannot be given together with targets: as many as there are targets"),
        (LISTENER + API + "user = 'root'\n", "cannot be given together with targets: lbproxy does not start targets"),
        (
            LISTENER + WEB + "bind = 'fd'\n",
            'bind = "fd" needs health.path: a connect to an inherited socket always succeeds',
        ),
        (LISTENER + "[pool.web]\ncommand = 'a {prt}'\n", "unknown placeholder {prt} (did you mean '{port}'?)"),
        (
            LISTENER + "[pool.web]\ncommand = 'a {port}'\nbind = 'unix'\n",
            '{port} has a value only with bind = "tcp", and bind is "unix"',
        ),
        (
            LISTENER + "[pool.web]\ncommand = 'a {socket}'\n",
            '{socket} has a value only with bind = "unix", and bind is "tcp"',
        ),
        (
            LISTENER + WEB + "hash_key = 'path'\n",
            "means something only with balance = \"hash\", and balance is 'least_conn'",
        ),
        (
            LISTENER + "[pool.web]\ntargets = ['https://a']\nsend_proxy = 'v2'\n",
            "is not supported with https targets",
        ),
        (
            LISTENER + "[pool.web]\ntargets = ['a:1']\ntls.verify = true\n",
            'means something only with targets such as "https://10.0.0.7:443"',
        ),
        (
            LISTENER + "[pool.web]\ntargets = ['https://a']\ntls = {verify = false, ca = 'a.pem'}\n",
            "means nothing with verify = false",
        ),
        (LISTENER + WEB + "restart.backoff.first = '1m'\n", "first is longer than max"),
        (
            LISTENER + WEB + "balance = 'hash'\nslow_start = '9s'\n",
            'has no meaning with balance = "hash": equal keys go to the same backend, new or not',
        ),
        (
            LISTENER + "mode = 'tcp'\n" + WEB + "sticky = {}\n",
            'means something only for HTTP, and every listener has mode = "tcp"',
        ),
        (LISTENER + WEB + "restart.backoff.max = '500ms'\n", "first is longer than max"),
        (
            LISTENER + WEB + "health.grpc = true\n",
            'needs protocol = "h2c" (or "h2"): gRPC is spoken over HTTP/2 only',
        ),
        (LISTENER + GRPC + "health.path = '/'\n", "means nothing with grpc = true: the call decides"),
        (LISTENER + GRPC + "health.active = false\n", "means nothing with active = false"),
        (
            LISTENER + "[pool.web]\ntargets = ['a:1', 'https://a']\nprotocol = 'h2c'\n",
            '"h2c" is HTTP/2 without TLS: https targets speak "h2" or "http/1.1"',
        ),
        (
            LISTENER + "[pool.web]\ntargets = ['a:1', 'https://a']\nprotocol = 'h2'\n",
            '"h2" is agreed on over TLS: a target without https:// speaks "h2c" or "http/1.1"',
        ),
        (
            LISTENER + WEB + "protocol = 'h2'\n",
            '"h2" is for https targets: a backend that lbproxy starts speaks "h2c" or "http/1.1"',
        ),
        (
            LISTENER + WEB + "protocol = 'h2c'\nsend_proxy = 'v1'\n",
            "has no place with protocol = 'h2c': clients share its connections",
        ),
        (
            LISTENER + WEB + "protocol = 'h2c'\naccept_bare_lf = true\n",
            "means nothing with protocol = 'h2c': HTTP/2 has no such thing",
        ),
    ],
)
def test_what_does_not_fit_together_is_told(text: str, message: str):
    assert messages(text) == [message]


def test_names_of_pools_are_not_doubted_when_there_is_no_pool():
    assert len(messages(LISTENER + "pool = 'web'")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "listener = 1\nroute = [1]\npool = 2",
        "[[listener]]\naddress = 1\npool = 2\nname = 3\n[pool.web]\ncommand = 4\nbind = 5\nhealth = 6\nrestart = 7",
        "[[listener]]\naddress = 'x'\n[pool.web]\ntargets = 1\ntls = 1\nhealth = []\nhash_key = []\nbalance = 'hash'",
        "[[listener]]\naddress = ':1'\n[pool.web]\ncommand = 'a'\nrestart.backoff = 1",
        "[[listener]]\naddress = ':1'\n[pool.web]\ncommand = 'a'\nrestart.backoff = {first = 1, max = 'x'}",
        "[[listener]]\naddress = ':1'\n[pool.web]\ncommand = 'a {port}'\nbind = ['fd']",
    ],
)
def test_a_wrong_shape_is_left_to_the_schema(text: str):
    assert messages(text) == []


def test_a_proxy_header_without_peers_to_believe_is_a_mistake() -> None:
    listener = {"address": ":80", "proxy_protocol": "accept"}
    document = {"listener": [listener], "pool": {"web": {"command": "a {port}"}}}
    (finding,) = check(document)
    assert finding.message.startswith("needs trusted_proxies")
    assert not list(check({**document, "listener": [{**listener, "trusted_proxies": ["10.0.0.0/8"]}]}))


def test_only_a_unix_socket_has_a_file_with_permissions() -> None:
    document = {"listener": [{"address": ":80", "socket_mode": "0660"}], "pool": {"web": {"command": "a {port}"}}}
    (finding,) = check(document)
    assert "means something only with an address such as unix:/run/lb.sock, not ':80'" in finding.message
    document["listener"] = [{"address": "unix:/run/a", "socket_mode": "0660", "socket_group": "adm"}]
    assert not list(check(document))

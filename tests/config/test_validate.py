import tomllib

import pytest

from lbproxy.config import schema, validate
from lbproxy.config.schema import ProxyTable
from lbproxy.config.tables import keys


def messages(text: str) -> list[str]:
    found = validate.read(tomllib.loads(text))
    assert isinstance(found, list)
    return [finding.message for finding in found]


def test_a_document_without_anything_has_the_right_shape():
    assert isinstance(validate.read({}), schema.Document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lisener = 1", "unknown key 'lisener' (did you mean 'listener'?)"),
        ("[proxy]\nwokers = 1", "unknown key 'wokers' in [proxy] (did you mean 'workers'?)"),
        ("[proxy]\nzzz = 1", "unknown key 'zzz' in [proxy] (there is: " + ", ".join(keys(ProxyTable)) + ")"),
        ("zzz = 1", "unknown key 'zzz' (there is: " + ", ".join(keys(schema.Document)) + ")"),
        ("[pool.a.retry]\nzzz = 1", "unknown key 'zzz' in [pool.a.retry] (there is: attempts)"),
        ("[[route]]\npool = 'a'\nhots = 'b'", "unknown key 'hots' in [[route]] (did you mean 'host'?)"),
        ("[pool.web.helth]", "unknown key 'helth' in [pool.web] (did you mean 'health'?)"),
        (
            "[pool.web.drain]\nwebsockets = 1",
            "unknown key 'websockets' in [pool.web.drain] (did you mean 'websocket'?)",
        ),
        ("[pool.web]\nmax_surge = 1", "unknown key 'max_surge' in [pool.web] (it belongs in [pool.web.reload])"),
        ("workers = 1", "unknown key 'workers' (it belongs in [proxy])"),
        ("[proxy]\nsize_of = 1\n", "unknown key 'size_of' in [proxy] (there is: " + ", ".join(keys(ProxyTable)) + ")"),
        ("[proxy]\nrise = 1\n", "unknown key 'rise' in [proxy] (it belongs in [pool.NAME.health])"),
        ("[[listener]]", "'address' is missing in [[listener]]"),
        ("[listener]", "expected a list, got a table (write [[listener]])"),
        ("listener = 1", "expected a list, got 1"),
        ("[[pool.web]]", "expected a table such as [pool.web], got a list (write [pool.web])"),
        ("[pool]\ncommand = 'a'", "expected a table such as [pool.web], got 'a'"),
        ("pool = 1", "expected a table, got 1"),
        ("[pool.web]\nhealth = '/'", "expected a table, got '/'"),
        ("[pool.web]\nbind = 'udp'", "expected tcp, unix or fd, got 'udp'"),
        ("[pool.web]\nbind = []", "expected tcp, unix or fd, got a list"),
        ("[pool.web]\nenv.PORT = 8080", 'expected a string, got 8080 (write "8080")'),
        ("[pool.web]\ntargets = 'a:1'", "expected a list, got 'a:1'"),
        ("[log]\nlevel = 'warn'", "expected debug, info, warning or error, got 'warn'"),
    ],
)
def test_a_wrong_shape_is_told_in_the_words_of_the_file(text: str, message: str):
    assert messages(text) == [message]

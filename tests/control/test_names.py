"""Names of targets and what becomes of them when addresses come and go."""

from dataclasses import replace

from lbproxy.address import Address
from lbproxy.control.names import Names, name_of, names_of
from lbproxy.settings import PoolSettings

APP, DB, FIXED = Address("app.internal", 8080), Address("db.internal", 1), Address("10.0.0.9", 8080)


def at(host: str, of: Address = APP) -> Address:
    return replace(of, host=host, name=of.host)


def test_a_name_stands_for_all_its_addresses_and_is_kept_beside_each():
    names = Names({name_of(APP): ("10.0.0.1", "10.0.0.2")})
    assert names.expand([FIXED, APP, DB]) == (FIXED, at("10.0.0.1"), at("10.0.0.2"))
    assert (str(at("10.0.0.1")), at("10.0.0.1").written, at("::1").authority) == (
        "10.0.0.1:8080",
        "app.internal:8080",
        "app.internal:8080",
    )


def test_a_name_that_is_missing_counts_as_one_backend():
    names = Names({name_of(APP): ("10.0.0.1", "10.0.0.2")})
    assert names.size(PoolSettings("web", targets=(FIXED, APP, DB), size=3)) == 4
    assert names.size(PoolSettings("web", command=("app",), size=3)) == 3


def test_what_is_in_no_target_any_more_goes():
    names = Names({name_of(APP): ("10.0.0.2",)})
    assert names.gone([FIXED, at("10.0.0.1"), at("10.0.0.2")], [APP]) == [FIXED, at("10.0.0.1")]


def test_while_a_name_is_missing_what_it_may_replace_stays():
    names = Names({name_of(APP): ("10.0.0.2",)})
    assert names.gone([FIXED, at("10.0.0.1"), at("10.0.0.2")], [APP, DB]) == [at("10.0.0.1")]
    assert names.gone([FIXED], [DB]) == []


def test_only_names_are_looked_up():
    pool = PoolSettings("web", targets=(APP, FIXED, Address("::1", 1), Address(path="/run/a"), Address("localhost", 1)))
    assert names_of([pool]) == {("app.internal", 8080), ("localhost", 1)}

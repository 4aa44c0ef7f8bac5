from hpack.table import HeaderTable

from lbproxy.wire.http2.static_table import SIZE, STATIC


def test_the_static_table_is_that_of_the_specification() -> None:
    assert tuple(HeaderTable.STATIC_TABLE) == STATIC
    assert len(STATIC) == SIZE

"""What the express lane keeps of a client connection, and for how long."""

from support.proxy import GET, OK, answering, get, post, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.worker.express.record import ExpressRecord


@trio_test(timeout_s=8)
async def test_one_record_serves_a_connection_for_as_long_as_it_lives() -> None:
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        records = set()
        for asked in (GET, post(b"abc"), get(b"/", b"Expect: 100-continue"), GET):
            await client.send(asked)
            await client.answer()
            records |= lb.lanes._records
        assert len(records) == 1
        client.close()
        await wait_until(lambda: not lb.lanes._records)


@trio_test(timeout_s=8)
async def test_a_record_is_idle_between_two_exchanges() -> None:
    async with proxy("express", answering(OK), answering(OK)) as lb:
        client = await lb.client()
        await wait_until(lambda: lb.lanes._records)
        (record,) = lb.lanes._records
        assert isinstance(record, ExpressRecord)
        assert record.is_idle
        await client.send(GET[:-2])
        await wait_until(lambda: record.buffer)
        assert not record.is_idle
        await client.send(GET[-2:])
        await client.answer()
        await wait_until(lambda: record.is_idle)


@trio_test(timeout_s=8)
async def test_an_idle_connection_keeps_no_body() -> None:
    async with proxy("express", answering(OK)) as lb:
        client = await lb.client()
        await client.send(post(bytes(50_000)))
        assert (await client.answer()).status == 200
        (record,) = lb.lanes._records
        assert isinstance(record, ExpressRecord)
        assert record.payload == b""

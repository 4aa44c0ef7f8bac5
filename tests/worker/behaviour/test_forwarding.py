"""scratch"""
from support.proxy import GET, OK, answering, get, lanes, proxy
from support.trio_test import trio_test


@lanes
@trio_test(timeout_s=10)
async def test_an_answer_comes_back(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(GET)
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"hello")

from pathlib import Path

from support.trio_test import trio_test

from lbproxy.supervise.resources import Resources


@trio_test
async def test_the_services_share_their_ports_and_leave_nothing_on_disk():
    resources = Resources.make([].append, (21200, 21201), 100)
    endpoint = resources.endpoints.take("tcp", "web.1", None)
    assert resources.ports.take() != endpoint.port
    path = resources.endpoints.take("unix", "web.1", None).address.path
    resources.close()
    assert not Path(path).parent.parent.exists()

from pathlib import Path

from support.trio_test import trio_test

from lbproxy.supervise.services import Services


@trio_test
async def test_the_services_share_their_ports_and_leave_nothing_on_disk():
    services = Services.make([].append, (21200, 21201), 100)
    place = services.places.take("tcp", "web.1", None)
    assert services.ports.take() != place.port
    path = services.places.take("unix", "web.1", None).address.path
    services.close()
    assert not Path(path).parent.parent.exists()

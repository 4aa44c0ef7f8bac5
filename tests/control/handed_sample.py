"""A document of an upgrade with something in each of its places."""

from control.fakes import generation, pool_settings, settings_of
from lbproxy.address import Address
from lbproxy.control.document import counter_names
from lbproxy.control.handed_on import (
    VERSION,
    Document,
    HandedCell,
    HandedFleet,
    HandedGrid,
    HandedListener,
    HandedMember,
    HandedPool,
    HandedSocket,
    HandedSockets,
    HandedUpgrade,
    HandedWorker,
    HandedWorkers,
)
from lbproxy.link.codec import LINK_VERSION
from lbproxy.model import RoutingTable, State
from lbproxy.supervise.handed_on import (
    HandedBackend,
    HandedDirectory,
    HandedEndpoint,
    HandedGuard,
    HandedHealth,
    HandedLine,
    HandedProcess,
    HandedResources,
    HandedRun,
)


def backend():
    endpoint = HandedEndpoint(Address("127.0.0.1", 20001), 20001, None)
    return HandedBackend(
        State.READY,
        1.5,
        endpoint.address,
        44,
        2,
        1,
        HandedHealth(True, 0, 1.0, 2.0, 1.0, None, "GET /: 200", False),
        None,
        (HandedLine(7, 1e9, b"hello".hex()),),
        7,
        HandedProcess(44, "abc.1", 21, b"cut".hex(), endpoint),
        HandedRun(0.5, 3, 44, None, None, None, (1, 2)),
        (0.25,),
        1,
    )


def document(**changes):
    settings = settings_of(pool_settings(size=1), workers=2)
    member = HandedMember(1, 0, 5, True, False, True, 0, 1.0, backend(), {"id": "d1", "asked_by": {"uid": 0}})
    pool = HandedPool(
        *("web", settings.pools[0], 0, (generation(7),), 4, (member,), ("size",), True, 30.0, None),
        totals={"REQUESTS": 9},
        requests_by_slot={"web.1": 9},
    )
    values = {
        "version": VERSION,
        "program": "0.1.0",
        "link_version": LINK_VERSION,
        "upgrade": HandedUpgrade("u1", "0.1.0", 1.0, 0.0, 30, {"uid": 0, "how": "command"}),
        "settings": settings,
        "table": RoutingTable(8, "edge", (), (), ()),
        "grid": HandedGrid(10, 2, 64, counter_names(), (9, 8)),
        "sockets": HandedSockets(2, (HandedListener(Address(port=80), 1, 0, (11, 12), False, "", 0, 2, False, False),)),
        "workers": HandedWorkers(4, (HandedWorker(1, 1, 40, 13, "serving", 1, 8, (1,), {"web.1@6": 3}, "00", (14,)),)),
        "worker_count": 2,
        "fleet": HandedFleet(8, {"web": 7}, (pool,), (HandedCell("web", "web.1@6", 6, 3),)),
        "resources": HandedResources(HandedGuard(41, 15, "abc", 9, (44,), ""), HandedDirectory("/run/x", 16), 3),
        "control_socket": HandedSocket(Address(path="/run/c"), 17, (1, 2), None),
        "admin_socket": HandedSocket(Address("127.0.0.1", 9901), 18, (0,)),
        "copy": HandedDirectory("/run/y", 19),
        "started_at": 0.0,
        "loaded_at": 1e9,
        "ignores_hangup": False,
        "has_terminal": True,
        "ids": {"r": 3, "u": 1},
        "history": [{"id": "r1"}],
        "generations": {"kept": [], "numbers": {}},
        "measured": {},
    }
    return Document(**{**values, **changes})

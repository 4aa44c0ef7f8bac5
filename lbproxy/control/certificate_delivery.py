"""Brings certificates to workers: before the first table with their listener, and anew when they have changed.

Knows which worker has which set. Does not know files.
"""

from collections.abc import Callable, Iterable
from itertools import count

from lbproxy.certificates.certificate_set import CertificateSet
from lbproxy.certificates.sealed import Sealed
from lbproxy.control.worker_process import WorkerProcess
from lbproxy.link.messages import CertificateNames, Certificates
from lbproxy.model import ListenerView


class CertificateDelivery:
    """`current`: the set of a listener now. `on_refused`: gets what a worker could not load, and why."""

    def __init__(self) -> None:
        self.current: Callable[[ListenerView], CertificateSet | None] = lambda view: None
        self.on_refused: Callable[[ListenerView, CertificateSet, str], None] = lambda view, found, why: None
        self._serials = count(1)

    def send(self, worker: WorkerProcess, listeners: Iterable[ListenerView], *, table_is_sent: bool = False) -> None:
        """Send each set that the worker does not have. A listener keeps its key when its settings change.

        Before the table with `listeners`, but a set that has no client authorities any more comes behind it: until
        then a certificate is asked of clients, and without authorities none is good. A worker of the program before
        an upgrade has its certificates, and is about to accept nobody.
        """
        if worker.is_old:
            return
        sets = {view.key: (view, self.current(view)) for view in listeners if view.settings.tls is not None}
        worker.certificates = {key: one for key, one in worker.certificates.items() if key in sets}
        for key, (view, found) in sets.items():
            before = worker.certificates.get(key)
            if found is None or before is found:
                continue
            if before is not None and before.client_ca is not None and found.client_ca is None and not table_is_sent:
                continue
            worker.certificates[key] = found
            serial = next(self._serials)
            worker.unanswered[serial] = view, found
            names = tuple(CertificateNames(pair.leaf.names) for pair in found.pairs)
            message = Certificates(serial, key, names, found.client_ca is not None)
            worker.channel.post(message, give=[_Loan(one) for one in _in_order(found)])

    def answered(self, worker: WorkerProcess, serial: int, why: str) -> None:
        view, found = worker.unanswered.pop(serial, (None, None))
        if why and view is not None and found is not None:
            self.on_refused(view, found, why)


class _Loan:
    """A descriptor that is on its way. It stays open until it is sent, also when its set is replaced meanwhile."""

    def __init__(self, sealed: Sealed) -> None:
        self._sealed: Sealed | None = sealed

    def fileno(self) -> int:
        assert self._sealed is not None
        return self._sealed.fileno()

    def close(self) -> None:
        self._sealed = None


def _in_order(found: CertificateSet) -> Iterable[Sealed]:
    for pair in found.pairs:
        yield from (pair.chain, pair.key)
    if found.client_ca is not None:
        yield found.client_ca.file

"""How the process that orders certificates is started; and a first certificate, self-signed, for each order.

Knows a command and an environment. certificate_orders.py keeps the process running.
"""

import os
import subprocess
import sys
from collections.abc import Mapping

from lbproxy.certificates import judge
from lbproxy.certificates.certificate_set import look_at
from lbproxy.config.load import problem_at
from lbproxy.config.problems import ConfigInvalid, dotted
from lbproxy.settings import Settings, TlsSettings
from lbproxy.supervise.program_copy import child_environment

COMMAND = (sys.executable, "-P", "-m", "lbproxy.acme")
STAND_IN_S = 30.0

# What it may know of the environment: where modules, a proxy and the system's authorities are. No secret is among it.
_KNOWN = frozenset(
    ["PATH", "LANG", "TZ", "HOME", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"]
)
_KNOWN |= frozenset(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"])


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Of the process: another interpreter imports this version of lbproxy in it."""
    return {name: value for name, value in child_environment(environ).items() if name in _KNOWN}


def ordered(settings: Settings) -> tuple[TlsSettings, ...]:
    """What is ordered, each once."""
    return tuple(dict.fromkeys(tls for _, tls in judge.places(settings) if tls.acme is not None))


def make_stand_ins(settings: Settings) -> None:
    """Make a certificate for each order that has none that can be used. Slow. Raises ConfigInvalid."""
    problems = []
    for path, tls in judge.places(settings):
        if tls.acme is None or look_at(tls).found is not None:
            continue
        file = tls.certs[0].cert
        done = subprocess.run(
            [*COMMAND, file, *tls.acme.domains],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STAND_IN_S,
            check=False,
            cwd="/",
            env=environment(os.environ),
        )
        if done.returncode:
            at, why = (*path, "acme"), done.stderr.strip().rpartition("\n")[2]
            problems.append(problem_at(settings.path, at, f"{dotted(at)}: {file!r} cannot be written: {why}"))
    if problems:
        raise ConfigInvalid(problems)

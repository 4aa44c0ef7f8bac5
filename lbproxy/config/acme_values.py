"""Values of `tls.acme`: the names that an authority is asked for, and the file that holds its certificate.

Each reader raises ValueError with what was expected. Knows no table and no other key.
"""

import hashlib
import ipaddress
import json
import os
import re

from lbproxy.config.problems import shown
from lbproxy.settings import AcmeSettings

DIRECTORY = "acme"  # in the state directory
_LONGEST_NAME = 253
_LONGEST_STEM = 200  # a file's name has at most 255 bytes
_label = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)").fullmatch
_email = re.compile(r"[!-?A-~]+@[!-?A-~]+").fullmatch
_url = re.compile(r"https://[^\s/?#@]+(/[!-~]*)?").fullmatch


def domain(value: object) -> str:
    """A public host name, in lower case and without the dot of the root."""
    if not isinstance(value, str):
        raise ValueError(f'expected a host name such as "example.com", got {shown(value)}')
    name = value.lower().removesuffix(".")
    if "*" in name:
        raise ValueError(f"{shown(value)}: a wildcard needs a challenge in the DNS, and lbproxy answers by HTTP only")
    if not name.isascii():
        raise ValueError(f"{shown(value)} is not ASCII: write the form that the DNS has{_better(name)}")
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        pass
    else:
        raise ValueError(f"{shown(value)} is an IP address: expected a host name")
    labels = name.split(".")
    if len(labels) < 2 or len(name) > _LONGEST_NAME or not all(map(_label, labels)) or labels[-1].isdigit():
        raise ValueError(f'expected a whole host name such as "example.com", got {shown(value)}')
    return name


def email(value: object) -> str:
    if not isinstance(value, str) or not _email(value):
        raise ValueError(f'expected an address such as "ops@example.com", got {shown(value)}')
    return value


def server(value: object) -> str:
    if not isinstance(value, str) or not _url(value):
        raise ValueError(f'expected the URL of a directory such as "https://acme.example/dir", got {shown(value)}')
    return value


def certificate_file(acme: AcmeSettings, state_dir: str) -> str:
    """Where the certificate, with its key, is kept. Other domains or another server: another file."""
    facts = json.dumps([sorted(acme.domains), acme.server])
    short = hashlib.sha256(facts.encode()).hexdigest()[:8]
    return os.path.join(state_dir, DIRECTORY, f"{acme.domains[0][:_LONGEST_STEM]}-{short}.pem")


def _better(name: str) -> str:
    try:
        return f", perhaps {name.encode('idna').decode()!r}"
    except UnicodeError:
        return " (xn--…)"

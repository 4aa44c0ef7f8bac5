"""The document of an upgrade as bytes in a memory file, and the descriptors that it names.

Knows the form of the document (handed_on.py). Knows neither what is in it nor when it is handed on.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from lbproxy.control.handed_on import VERSION, Document
from lbproxy.control.plain import from_plain, plain
from lbproxy.errors import LbproxyError
from lbproxy.link.codec import LINK_VERSION
from lbproxy.link.grid import Counter


class DocumentRefused(LbproxyError):
    """This version cannot go on from the document. The text is one line for the operator."""


def write_document(document: Document) -> int:
    """A descriptor of a memory file with the document."""
    fd = os.memfd_create("lbproxy-upgrade", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps(plain(document)).encode())
    return fd


def read_document(fd: int) -> Document:
    """Raises DocumentRefused."""
    try:
        size = os.fstat(fd).st_size
        values = json.loads(os.pread(fd, size, 0))
        version = values["version"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DocumentRefused(f"the state that the running lbproxy hands on cannot be read: {exc!r}") from None
    if version != VERSION:
        raise DocumentRefused(
            f"the running lbproxy {values.get('program')} hands on its state in version {version}, "
            f"and this one reads version {VERSION}: stop and start instead"
        )
    try:
        document = from_plain(Document, values)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DocumentRefused(f"the state that the running lbproxy hands on makes no sense here: {exc!r}") from None
    if not LINK_VERSION - 1 <= document.link_version <= LINK_VERSION:
        raise DocumentRefused(
            f"the workers of the running lbproxy speak version {document.link_version}, this one {LINK_VERSION}"
        )
    if document.grid.counters != counter_names():
        raise DocumentRefused("the workers of the running lbproxy count other things than this version")
    return document


def counter_names() -> tuple[str, ...]:
    return tuple(counter.name for counter in Counter)


def descriptors(value: Any) -> Iterator[int]:
    """Every descriptor that the document names."""
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            inner = getattr(value, field.name)
            if field.name.endswith("_fd"):
                if inner >= 0:
                    yield inner
            elif field.name.endswith("_fds"):
                yield from inner
            else:
                yield from descriptors(inner)
    elif isinstance(value, tuple):
        for item in value:
            yield from descriptors(item)

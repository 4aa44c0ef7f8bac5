import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from lbproxy.descriptors import open_missing_streams
open_missing_streams()
free = os.open(os.devnull, os.O_RDONLY)
print("to whichever stdout there is")
print("and stderr", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    streams = (sys.stdin, sys.stdout, sys.stderr)
    file.write(f"{free > 2} {all(map(os.get_inheritable, (0, 1, 2)))} {None in streams}")
"""


CLOSED = ["", "0<&-", "1>&-", "2>&-", "0<&- 1>&-", "0<&- 2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"]


@pytest.mark.parametrize("closed", CLOSED)
def test_what_is_missing_of_the_standard_streams_is_opened(closed, tmp_path):
    told = tmp_path / "told"
    subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", SCRIPT, told], check=True)
    assert told.read_text() == "True True False"

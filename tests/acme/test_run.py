"""The process that orders certificates: a real one, with an authority that is not there."""

import subprocess
import sys
from pathlib import Path

from support.ports import free_port

from lbproxy.acme.messages import Order, Standing, Wanted, decode, encode

COMMAND = [sys.executable, "-P", "-m", "lbproxy.acme"]


def test_it_says_how_orders_stand_and_ends_with_its_link(tmp_path: Path) -> None:
    order = Order(str(tmp_path / "a.pem"), ("a.example",), f"https://127.0.0.1:{free_port()}/dir")
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode(Wanted((order,))))
        process.stdin.flush()
        said = [decode(process.stdout.readline()) for _ in range(3)]
        process.stdin.close()
        assert process.wait(10) == 0
    standings = [message for message in said if isinstance(message, Standing)]
    assert [message.state for message in standings] == ["ordering", "failed"]
    assert standings[1].why == "the authority cannot be asked: connection refused"
    assert not (tmp_path / "a.pem").exists()


def test_it_makes_one_that_stands_in(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.pem"
    assert subprocess.run([*COMMAND, str(file), "a.example"], check=False).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    refused = subprocess.run([*COMMAND, "/proc/none/a.pem", "a.example"], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr == "No such file or directory\n"

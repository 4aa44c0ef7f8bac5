"""What a process gives up, looked at in processes of their own: none of it can be taken back."""

import os
import subprocess
import sys

import pytest
from support.users import needs_root

from lbproxy.privileges import Identity

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def told(code: str, environment: dict[str, str] | None = None, **credentials: int) -> str:
    """What a program prints that imports lbproxy.privileges as `p`, and Path."""
    begin = "import os\nfrom pathlib import Path\nimport lbproxy.privileges as p\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + code],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        **credentials,
    )
    return done.stdout + done.stderr


def test_an_identity_is_written_as_it_is_read() -> None:
    assert str(Identity.parse("33:34")) == "33:34"
    assert Identity.parse("33:34") == Identity(33, 34)
    with pytest.raises(ValueError, match="invalid literal"):
        Identity.parse("www-data")


@ROOT
def test_who_renounces_has_nothing_left_and_gets_nothing_back() -> None:
    code = """
p.renounce(p.Identity(65534, 65533))
print(os.getresuid(), os.getresgid(), os.getgroups())
status = Path("/proc/self/status").read_text()
print([line.split()[1] for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs"))])
for regain in (lambda: os.setuid(0), lambda: os.setgroups([0])):
    try:
        regain()
    except PermissionError:
        print("refused")
"""
    none = ["0" * 16] * 5
    assert told(code).splitlines() == [
        "(65534, 65534, 65534) (65533, 65533, 65533) []",
        str([*none, "1"]),
        "refused",
        "refused",
    ]


def test_who_stays_the_same_user_gets_no_new_privileges() -> None:
    code = """
p.renounce(None)
print(os.getuid(), "NoNewPrivs:\\t1" in Path("/proc/self/status").read_text())
"""
    assert told(code) == f"{os.getuid()} True\n"


@needs_root
def test_hidden_memory_is_for_no_other_process_and_for_oneself_all_the_same() -> None:
    """Descriptors are opened anew through /proc/self/fd, as OpenSSL does with keys."""
    code = """
p.hide_memory()
fd = os.memfd_create("key")
os.write(fd, b"secret")
print(Path(f"/proc/self/fd/{fd}").read_bytes(), os.stat("/proc/self/environ").st_uid)
pid = os.fork()
if pid == 0:
    os.execv("/bin/cat", ["cat", f"/proc/{os.getppid()}/environ"])
os.waitpid(pid, 0)
"""
    said = told(code, user=65534, group=65534)
    assert said.startswith("b'secret' 0\n")
    assert "Permission denied" in said


def test_a_variable_can_be_overwritten_where_others_look_for_it() -> None:
    code = """
p.overwrite_variable("SOME_KEY")
p.overwrite_variable("NO_SUCH_KEY")
shown = Path("/proc/self/environ").read_bytes()
print(b"SOME_KEY=\\0" in shown, b"hidden-value" in shown, b"OTHER=stays" in shown, os.environ["SOME_KEY"])
"""
    assert told(code, {"SOME_KEY": "hidden-value", "OTHER": "stays"}) == "True False True hidden-value\n"

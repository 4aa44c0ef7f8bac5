"""The copy of the package: what comes later is still the version that was started."""

import subprocess
import sys
from pathlib import Path

import lbproxy

SCRIPT = """
import os, subprocess, sys
import lbproxy.supervise
from lbproxy.supervise.program_copy import child_environment, import_path, make_copy
from pathlib import Path

installed = Path(sys.argv[1], "lbproxy")
directory = make_copy()
# What `pip install -U` would do.
(installed / "__init__.py").write_text('__version__ = "99"')
(installed / "policy" / "backoff.py").write_text("raise SystemExit('a file of the new version')")
import lbproxy.policy.backoff
assert lbproxy.policy.backoff.__file__.startswith(str(directory.path)), lbproxy.policy.backoff.__file__
os.mkdir("elsewhere")
Path("elsewhere/trio.py").write_text("raise SystemExit('of the working directory')")
asked = "import lbproxy, trio, lbproxy.policy.backoff; print(lbproxy.__version__)"
child = [sys.executable, "-P", "-c", asked]
print(subprocess.check_output(child, env=child_environment(os.environ), cwd="elsewhere", text=True), end="")
assert import_path() == str(directory.path / "program")
directory.close()
print(os.path.exists(directory.path))
"""


def test_what_is_imported_or_started_later_is_the_version_that_was_started(tmp_path):
    subprocess.run(["cp", "-r", str(Path(lbproxy.__file__).parent), str(tmp_path / "lbproxy")], check=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={"PYTHONPATH": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == [lbproxy.__version__, "False"]

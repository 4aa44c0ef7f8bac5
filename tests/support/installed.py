"""A copy of the package that a test may change, as `pip install -U` would: `lbproxy serve` is started from it."""

import shutil
from pathlib import Path

import lbproxy


class Installed:
    """`environment` for `serving`: what it starts is this copy.

    The compiled files come along: an upgrade starts four interpreters, and each would compile 300 modules. No compiled
    file is written, because a module that changes twice within a second would keep its old one.
    """

    def __init__(self, directory: Path) -> None:
        self.package = directory / "lbproxy"
        shutil.copytree(Path(lbproxy.__file__).parent, self.package)  # with their times, by which they are known
        self.environment = {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}

    def become(self, version: str) -> None:
        """Another version."""
        self.replace("__init__.py", f'__version__ = "{lbproxy.__version__}"', f'__version__ = "{version}"')

    def replace(self, module: str, old: str, new: str) -> None:
        """Change the installed text of a module, which is always that of the package under test before."""
        text = (Path(lbproxy.__file__).parent / module).read_text()
        assert text.count(old) == 1, (module, old)
        path = self.package / module
        path.unlink()  # as pip does: what runs keeps its file
        path.write_text(text.replace(old, new))

    def restore(self, module: str) -> None:
        shutil.copy(Path(lbproxy.__file__).parent / module, self.package / module)

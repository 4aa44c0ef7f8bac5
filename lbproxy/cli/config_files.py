"""The files of configs/ that `lbproxy init` adapts to a project: found in the repository and in an installed lbproxy.

pyproject.toml puts them into the wheel, below the package. An editable installation reads those of its repository.
"""

from importlib.resources import files
from pathlib import Path

NAMES = ("Dockerfile", "compose.yaml", "kubernetes.yaml", "github-actions.yml", "deploy.sh")


def config_file(name: str) -> str:
    """The text of one file. Raises FileNotFoundError where the installation is not complete."""
    packaged = files("lbproxy").joinpath("configs", name)
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "configs" / name).read_text(encoding="utf-8")

"""Every reason that the code counts has a sentence, every sentence a reason, and the README shows them all."""

import ast
from pathlib import Path

from lbproxy.link.handed_over import HANDED_OVER, as_table
from lbproxy.worker.express.phase import PHASES

ROOT = Path(__file__).parents[2]
HANDING_OVER = {"enter": 2, "enter_again": 1, "enter_buffered": 1, "give_up": 1, "resume": 1}  # where the reason stands


MODULES = {"finish", "request"}  # else what stands before the dot is the record itself


def reasons_in_the_code() -> set[str]:
    found = set()
    for room in ("express", "http2"):
        for path in (ROOT / "lbproxy" / "worker" / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and (place := place_of_reason(node.func)) is not None:
                    found |= {leaf.value for leaf in ast.walk(node.args[place]) if isinstance(leaf, ast.Constant)}
    return found


def place_of_reason(called: ast.expr) -> int | None:
    if isinstance(called, ast.Name):
        return HANDING_OVER.get(called.id)
    if not isinstance(called, ast.Attribute) or called.attr not in HANDING_OVER:
        return None
    of_module = isinstance(called.value, ast.Name) and called.value.id in MODULES
    return HANDING_OVER[called.attr] - (not of_module)


def test_the_table_has_the_reasons_that_the_code_uses_and_no_other() -> None:
    of_phases = {action.argument for phase in PHASES for _, action in phase.actions() if action.method in HANDING_OVER}
    assert reasons_in_the_code() | of_phases == set(HANDED_OVER)


def test_a_reason_is_one_word_and_one_sentence() -> None:
    for reason, sentence in HANDED_OVER.items():
        assert reason.isidentifier()
        assert sentence[0].islower() or sentence.startswith("LBPROXY_")
        assert not sentence.endswith(".")


def test_the_readme_explains_every_reason() -> None:
    marker = "<!-- handed over: a test compares this with handed_over.as_table() -->\n"
    _, _, behind = (ROOT / "README.md").read_text().partition(marker)
    assert behind.startswith(as_table() + "\n")

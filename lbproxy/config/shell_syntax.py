"""Commands that are written for a shell, found before they fail: lbproxy starts programs without one.

Knows words as shlex splits them. Only what a program can hardly mean as an argument counts.
"""

import json
import re
import shlex

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_OPERATOR = re.compile(r"&&|\|\|?|;|&|[0-9]*(?:>>?|<<?)(?:&[0-9-])?|&>>?")
_EXPANSION = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[^}]*\}|\([^)]*\))|`[^`]*`")
_BUILTINS = frozenset(("cd", "export", "source", ".", "exec", "eval", "set", "unset", "ulimit", "umask", "alias"))
_SHELLS = frozenset(("sh", "bash", "dash", "zsh", "ksh", "ash", "fish"))


def find(command: str) -> str | None:
    """The shell syntax in a command that is one string, and its replacement; None if there is none.

    Raises ValueError where the string cannot be split into words.
    """
    words = shlex.split(command)
    if not words or words[0].rpartition("/")[2] in _SHELLS:
        return None
    assigned = _ASSIGNMENT.fullmatch(words[0])
    if assigned is not None:
        return _told(words[0], command, f"or write env = {{ {assigned[1]} = {json.dumps(assigned[2])} }}")
    if words[0] in _BUILTINS:
        more = f"or write directory = {json.dumps(words[1])}" if words[0] == "cd" and len(words) > 1 else ""
        return _told(words[0], command, more)
    # Quotes take the meaning from what they hold: asked is the text outside of single quotes.
    outside = re.sub(r"'[^']*'|\\.", " ", command)
    expansion = _EXPANSION.search(outside)
    if expansion is not None:
        more = "or write {port}" if expansion[0] in ("$PORT", "${PORT}") else ""
        return _told(expansion[0], command, more)
    bare = re.sub(r'"[^"]*"', " ", outside).split()
    operator = next((word for word in bare if _OPERATOR.fullmatch(word) or word.endswith((";", "&"))), None)
    if operator is not None:
        return _told(operator, command, "")
    home = next((word for word in bare if word.startswith("~/")), None)
    return _told(home, command, "") if home is not None else None


def _told(what: str, command: str, more: str) -> str:
    instead = json.dumps(["sh", "-c", command], ensure_ascii=False)
    also = f", {more}" if more else ""
    return f"{what} is shell syntax, and a command is started without a shell (write {instead}{also})"

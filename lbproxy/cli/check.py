"""`lbproxy check`: every mistake of a configuration at once."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from lbproxy import __version__
from lbproxy.cli.options import Options, with_options

if TYPE_CHECKING:
    from lbproxy.config.problems import Problem
    from lbproxy.settings import Settings

CONFIG_INVALID = 78


@click.command(short_help="Every mistake of the configuration at once.")
@click.option("--json", "as_json", is_flag=True, help="The mistakes as one JSON object.")
@click.option("--effective", is_flag=True, help="Print the whole file, with every default.")
@click.option("--acme", is_flag=True, help="Also look at what tls.acme needs: DNS, port 80 and CAA of each domain.")
@with_options
def check(options: Options, as_json: bool, effective: bool, acme: bool) -> int:
    """Read the configuration and say everything that is wrong with it.

    --effective prints it with every default, as a file that means the same; secrets are not shown.
    --acme asks what an authority would ask, while lbproxy runs: does each domain lead to a port 80 that answers, and do
    its CAA records allow a certificate?
    """
    from lbproxy.certificates.judge import found_in, read_all, remarks
    from lbproxy.config.advice import advise, rights
    from lbproxy.config.load import load
    from lbproxy.config.problems import ConfigInvalid, dotted
    from lbproxy.control.plan import resolve_all

    path = options.config_path
    try:
        settings = load(path)
        resolve_all(list(settings.pools), settings)  # as serve and reload do next: it reads each env_file
        certificates = found_in(read_all(settings))
    except ConfigInvalid as exc:
        problems = [asdict(problem) for problem in exc.problems]
        print(json.dumps({"ok": False, "path": path, "errors": problems}) if as_json else exc.text)
        return CONFIG_INVALID
    advice = (*rights(settings), *advise(settings))
    to_mend = _to_mend(settings, path) if acme else []
    if to_mend:
        said = {"ok": False, "path": path, "errors": [asdict(problem) for problem in to_mend]}
        print(json.dumps(said) if as_json else ConfigInvalid(to_mend).text)
        return CONFIG_INVALID
    warnings = [(warning.partition(": ")[0], warning) for warning in advice]
    warnings += [(".".join(map(str, at)), f"{dotted(at)}: {remark}") for at, remark in remarks(settings, certificates)]
    if as_json:
        texts = [text for _, text in warnings]
        whole = {"effective": _whole(settings, path)} if effective else {}
        print(json.dumps({"ok": True, "path": path, "errors": [], "warnings": texts, **whole}))
    elif effective:
        from lbproxy.config.toml_text import toml_text

        print(f"# {path} with every default, as lbproxy {__version__} reads it\n")
        print(toml_text(_whole(settings, path)), end="")
    elif not options.quiet:
        from lbproxy.config.load import place_of

        for key, text in warnings:
            print(f"{place_of(path, key)}: warning: {text}")
        listeners = count(len(settings.listeners), "listener")
        print(f"{path}: ok: {listeners}, {count(len(settings.pools), 'pool')}")
    return 0


def _to_mend(settings: "Settings", path: str) -> list["Problem"]:
    """What an authority would stumble over, where the file has its `acme`."""
    import trio

    from lbproxy.acme.preflight import Surroundings, examine
    from lbproxy.certificates.judge import places
    from lbproxy.config.load import problem_at
    from lbproxy.config.problems import dotted

    problems = []
    for at, tls in places(settings):
        if tls.acme is not None:
            at = (*at, "acme")
            lines = trio.run(examine, tls.acme, Surroundings.of_this_machine())
            problems += [problem_at(path, at, f"{dotted(at)}: {line}") for line in lines]
    return problems


def _whole(settings: "Settings", path: str) -> dict[str, Any]:
    from lbproxy.config.effective import effective
    from lbproxy.config.load import document

    return effective(settings, document(path))


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

"""`lbproxy check`: every mistake of a configuration at once."""

import json
from dataclasses import asdict

import click

from lbproxy.cli.not_supported import not_supported
from lbproxy.cli.options import Options, with_options

CONFIG_INVALID = 78


@click.command
@click.option("--json", "as_json", is_flag=True, help="The mistakes as one JSON object.")
@click.option("--effective", is_flag=True, help="(not supported yet)")
@with_options
def check(options: Options, as_json: bool, effective: bool) -> int:
    """Read the configuration and say everything that is wrong with it."""
    if effective:
        raise not_supported("check --effective")
    from lbproxy.config.advice import advise
    from lbproxy.config.load import load
    from lbproxy.config.problems import ConfigInvalid

    path = options.config_path
    try:
        settings = load(path)
    except ConfigInvalid as exc:
        problems = [asdict(problem) for problem in exc.problems]
        print(json.dumps({"ok": False, "path": path, "errors": problems}) if as_json else exc.text)
        return CONFIG_INVALID
    warnings = advise(settings)
    if as_json:
        print(json.dumps({"ok": True, "path": path, "errors": [], "warnings": warnings}))
    elif not options.quiet:
        for warning in warnings:
            print(f"{path}: warning: {warning}")
        listeners = count(len(settings.listeners), "listener")
        print(f"{path}: ok: {listeners}, {count(len(settings.pools), 'pool')}")
    return 0


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

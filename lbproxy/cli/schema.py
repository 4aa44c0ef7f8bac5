"""`lbproxy schema`: the JSON Schema of the configuration, for editors."""

import json

import click

from lbproxy.cli.options import Options, with_options


@click.command(short_help="The JSON Schema of the configuration, for editors.")
@with_options
def schema(options: Options) -> int:
    """Print the JSON Schema of the configuration. Editors complete keys with it, and show what each one does.

    An editor that knows TOML (Even Better TOML, taplo) reads it when the first line of the configuration is
    `#:schema ./lb.schema.json`.
    """
    from lbproxy.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0

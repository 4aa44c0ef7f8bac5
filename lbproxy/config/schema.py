"""The shape of the file: which tables there are and which keys they have (CONTRACT.md 2).

pydantic's only door. A field is named as the one of settings.py that it fills; its key in the file is that name
without the `_s` of seconds. Every default is None and means "not given": the defaults themselves stand in settings.py.
"""

from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import BaseModel, ConfigDict, PlainValidator

from lbproxy.address import Address
from lbproxy.config import units, values
from lbproxy.config.problems import Finding, Path, closest, dotted, header, shown

Text = Annotated[str, PlainValidator(values.text)]
Filled = Annotated[str, PlainValidator(values.filled)]
Label = Annotated[str, PlainValidator(values.label)]
Seconds = Annotated[float, PlainValidator(units.duration)]
SomeSeconds = Annotated[float, PlainValidator(units.positive_duration)]
Bytes = Annotated[int, PlainValidator(units.size)]
Natural = Annotated[int, PlainValidator(values.whole(0))]
Positive = Annotated[int, PlainValidator(values.whole(1))]
Processes = Annotated[int | Literal["auto"], PlainValidator(values.count_or_auto)]
Words = Annotated[list[str], PlainValidator(values.words)]


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=lambda name: name.removesuffix("_s"))

    def given(self) -> dict[str, Any]:
        """The values of the file, by the names of settings.py."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class ProxyTable(Table):
    name: Label | None = None
    workers: Processes | None = None
    control: Filled | None = None
    pid_file: Filled | None = None
    ports: Annotated[tuple[int, int], PlainValidator(values.port_range)] | None = None
    shutdown_timeout_s: Seconds | None = None


class ListenerLimitsTable(Table):
    header_bytes: Bytes | None = None
    headers: Natural | None = None
    body_bytes: Bytes | None = None
    connections: Natural | None = None


class ListenerTimeoutsTable(Table):
    header_s: SomeSeconds | None = None
    idle_s: SomeSeconds | None = None
    body_s: SomeSeconds | None = None


class ListenerTable(Table):
    address: Annotated[Address, PlainValidator(values.address)]
    name: Label | None = None
    mode: Literal["http", "tcp"] | None = None
    pool: Text | None = None
    proxy_protocol: Literal["off", "accept"] | None = None
    trusted_proxies: list[Annotated[str, PlainValidator(values.network)]] | None = None
    limits: ListenerLimitsTable | None = None
    timeouts: ListenerTimeoutsTable | None = None
    half_close: Literal["abort", "serve"] | None = None


class RouteTable(Table):
    pool: Text
    host: Annotated[str, PlainValidator(values.route_host)] | None = None
    path: Annotated[str, PlainValidator(values.route_path)] | None = None


class HealthTable(Table):
    path: Annotated[str, PlainValidator(values.probe_path)] | None = None
    expect: Annotated[tuple[tuple[int, int], ...], PlainValidator(values.statuses)] | None = None
    start_timeout_s: SomeSeconds | None = None
    interval_s: SomeSeconds | None = None
    timeout_s: SomeSeconds | None = None
    rise: Positive | None = None
    fall: Positive | None = None
    host: Annotated[str, PlainValidator(values.probe_host)] | None = None
    headers: Annotated[tuple[tuple[str, str], ...], PlainValidator(values.probe_headers)] | None = None
    active: Annotated[bool, PlainValidator(values.truth)] | None = None


class ReloadTable(Table):
    max_surge: Annotated[tuple[int, bool], PlainValidator(values.surge)] | None = None
    min_ready_s: Seconds | None = None
    on_failure: Literal["rollback", "pause"] | None = None
    keep: Natural | None = None


class DrainTable(Table):
    request_s: Seconds | None = None
    transfer_s: Seconds | None = None
    stream_s: Seconds | None = None
    websocket_s: Seconds | None = None
    tcp_s: Seconds | None = None
    goodbye_s: Seconds | None = None
    close_code: Annotated[int, PlainValidator(values.close_code)] | None = None
    close_reason: Annotated[str, PlainValidator(values.close_reason)] | None = None


class BackoffTable(Table):
    first_s: Seconds | None = None
    max_s: Seconds | None = None


class GiveUpTable(Table):
    crashes: Positive | None = None
    within_s: SomeSeconds | None = None


class RestartTable(Table):
    backoff: BackoffTable | None = None
    give_up: GiveUpTable | None = None
    stop_signal: Annotated[int, PlainValidator(values.stop_signal)] | None = None
    stop_timeout_s: Seconds | None = None


class PoolTimeoutsTable(Table):
    connect_s: SomeSeconds | None = None
    response_s: SomeSeconds | None = None
    idle_s: SomeSeconds | None = None
    keepalive_s: Seconds | None = None


class QueueTable(Table):
    size: Natural | None = None
    timeout_s: Seconds | None = None


class PoolLimitsTable(Table):
    connections: Natural | None = None
    queue: QueueTable | None = None


class RetryTable(Table):
    attempts: Positive | None = None


class PoolTable(Table):
    command: Words | None = None
    targets: list[Annotated[Address, PlainValidator(values.target)]] | None = None
    directory: Filled | None = None
    env: dict[str, Text] | None = None
    env_file: Filled | None = None
    user: Filled | None = None
    size: Processes | None = None
    bind: Literal["tcp", "unix", "fd"] | None = None
    balance: Literal["least_conn", "round_robin", "random_two", "hash"] | None = None
    hash_key: Annotated[str, PlainValidator(values.hash_key)] | None = None
    health: HealthTable | None = None
    reload: ReloadTable | None = None
    drain: DrainTable | None = None
    restart: RestartTable | None = None
    timeouts: PoolTimeoutsTable | None = None
    limits: PoolLimitsTable | None = None
    retry: RetryTable | None = None
    buffer_request: Bytes | None = None


class LogTable(Table):
    level: Literal["debug", "info", "warning", "error"] | None = None
    format: Literal["auto", "text", "json"] | None = None
    access: Literal["combined", "json", "off"] | None = None
    access_path: Filled | None = None
    backend_lines: Natural | None = None


class Document(Table):
    proxy: ProxyTable | None = None
    listener: list[ListenerTable] | None = None
    route: list[RouteTable] | None = None
    pool: dict[str, PoolTable] | None = None
    log: LogTable | None = None


def read(document: dict[str, Any]) -> Document | list[Finding]:
    """The document as tables, or everything in it that has the wrong shape."""
    try:
        return Document.model_validate(document)
    except pydantic.ValidationError as exc:
        return [_finding(error["type"], error) for error in exc.errors(include_url=False)]


def _finding(kind: str, error: Any) -> Finding:
    path: Path = error["loc"]
    value = error["input"]
    match kind:
        case "extra_forbidden":
            return _unknown(path, value)
        case "missing":
            message = f"'{path[-1]}' is missing in {header(path[:-1])}"
            return Finding(path[:-1], message, named=False, at_table=True, lacks=(str(path[-1]),))
        case "value_error":
            return Finding(path, str(error["ctx"]["error"]))
        case "literal_error":
            expected = error["ctx"]["expected"].replace("'", "")
            return Finding(path, f"expected {expected}, got {shown(value)}")
        case "list_type":
            written = f" (write [[{dotted(path)}]])" if isinstance(value, dict) else ""
            return Finding(path, f"expected a list, got {shown(value)}{written}", at_table=True)
        case "model_type" | "dict_type":
            written = f" (write [{dotted(path) if len(path) > 1 else 'pool.' + _pool_name(value)}])"
            written = written if isinstance(value, list) else ""
            example = " such as [pool.web]" if path[0] == "pool" and len(path) == 2 else ""
            return Finding(path, f"expected a table{example}, got {shown(value)}{written}", at_table=True)
    return Finding(path, str(error["msg"]))


def _unknown(path: Path, value: object) -> Finding:
    *above, key = path
    parents = tuple(above)
    where = f" in {header(parents)}" if parents else ""
    means = closest(str(key), _keys(_model_at(parents)))
    if means is not None:
        return Finding(path, f"unknown key '{key}'{where} (did you mean '{means}'?)", named=False, means=means)
    homes = [home for home, table in _tables(Document) if home and key in _keys(table)]
    pool = next((str(part) for part in parents[1:2] if parents[0] == "pool"), "NAME")
    places = [_place(home, str(key), value).replace("*", pool) for home in homes]
    hint = f" (it belongs {' or '.join(places)})" if 0 < len(places) <= 3 else ""
    return Finding(path, f"unknown key '{key}'{where}{hint}", named=False)


def _place(home: str, key: str, value: object) -> str:
    """Where a key can stand: "in [proxy]"; a table by its whole name: "in [pool.NAME.health]"."""
    is_listed = home in ("listener", "route")
    if isinstance(value, dict | list):
        return f"in [{home}.{key}] behind a [[{home}]]" if is_listed else f"in [{home}.{key}]"
    if home.startswith("listener."):
        return f"in [{home}] behind a [[listener]]"
    return f"in [[{home}]]" if is_listed else f"in [{home}]"


def _pool_name(value: object) -> str:
    """The name of a pool that is written as [[pool]], for the message."""
    first = value[0] if isinstance(value, list) and value else None
    name = first.get("name") if isinstance(first, dict) else None
    return name if isinstance(name, str) else "NAME"


def _keys(table: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in table.model_fields.items()]


def _model_at(path: Path) -> type[BaseModel]:
    """The table that a path leads to. Elements and pools have the model of their list or dictionary."""
    table: type[BaseModel] = Document
    for part in path:
        for name, info in table.model_fields.items():
            if part == (info.alias or name):
                table = _model_in(info.annotation) or table
    return table


def _tables(table: type[BaseModel], path: str = "") -> list[tuple[str, type[BaseModel]]]:
    """Every table that a file can have, with its name; `*` stands for the name of a pool."""
    found = [(path, table)]
    for name, info in table.model_fields.items():
        inner = _model_in(info.annotation)
        if inner is not None:
            key = info.alias or name
            below = f"{path}.{key}" if path else key
            found += _tables(inner, f"{below}.*" if inner is PoolTable else below)
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """`PoolTable` of `dict[str, PoolTable] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for model in map(_model_in, get_args(annotation)) if model is not None), None)

"""The types of the keys: how a value is read from the file (values.py, units.py), and what explains it (kinds.py)."""

from typing import Annotated, Literal

from pydantic import PlainValidator

from lbproxy.address import Address
from lbproxy.config import kinds, secret_types, targets, units, values
from lbproxy.config.table import Read
from lbproxy.settings import Secret

Text = Annotated[str, Read(values.text), kinds.TEXT]
Filled = Annotated[str, Read(values.filled), kinds.PATH]
Label = Annotated[str, Read(values.label), kinds.LABEL]
Seconds = Annotated[float, Read(units.duration), kinds.DURATION]
SomeSeconds = Annotated[float, Read(units.positive_duration), kinds.DURATION]
Bytes = Annotated[int, Read(units.size), kinds.SIZE]
Natural = Annotated[int, Read(values.whole(0)), kinds.NATURAL]
Positive = Annotated[int, Read(values.whole(1)), kinds.POSITIVE]
Processes = Annotated[int | Literal["auto"], Read(values.count_or_auto), kinds.PROCESSES]
Words = Annotated[list[str], Read(values.words), kinds.COMMAND]
Ports = Annotated[tuple[int, int], Read(values.port_range), kinds.PORTS]
Listen = Annotated[Address, Read(values.address), kinds.LISTEN]
Bound = Annotated[Address, Read(values.bound_address), kinds.BOUND]
Target = Annotated[Address, Read(targets.target), kinds.TARGET]
ServerName = Annotated[str, Read(targets.server_name), kinds.SERVER_NAME]
TrustedProxy = Annotated[str, Read(values.trusted_proxy), kinds.TRUSTED_PROXY]
FileMode = Annotated[int, Read(values.file_mode), kinds.FILE_MODE]
RouteHost = Annotated[str, Read(values.route_host), kinds.HOST]
RoutePath = Annotated[str, Read(values.route_path), kinds.ROUTE_PATH]
ProbePath = Annotated[str, Read(values.probe_path), kinds.PROBE_PATH]
ProbeHost = Annotated[str, Read(values.probe_host), kinds.PROBE_HOST]
ProbeHeaders = Annotated[tuple[tuple[str, str], ...], Read(values.probe_headers), kinds.HEADERS]
Statuses = Annotated[tuple[tuple[int, int], ...], Read(values.statuses), kinds.STATUSES]
Truth = Annotated[bool, Read(values.truth), kinds.TRUTH]
Surge = Annotated[tuple[int, bool], Read(values.surge), kinds.SURGE]
Percentage = Annotated[int, Read(values.percentage), kinds.PERCENTAGE]
CloseCode = Annotated[int, Read(values.close_code), kinds.CLOSE_CODE]
CloseReason = Annotated[str, Read(values.close_reason), kinds.CLOSE_REASON]
Signal = Annotated[int, Read(values.stop_signal), kinds.SIGNAL]
Upgrade = Annotated[str, Read(values.upgrade), kinds.UPGRADE]
CookieName = Annotated[str, Read(values.cookie_name), kinds.COOKIE]
StickyKey = Annotated[Secret, PlainValidator(secret_types.any_secret), kinds.STICKY_KEY]
HashKey = Annotated[str, Read(values.hash_key), kinds.HASH_KEY]

AdminPath = Annotated[str, Read(values.admin_path), kinds.ADMIN_PATH]
Token = Annotated[Secret, PlainValidator(secret_types.token), kinds.TOKEN]

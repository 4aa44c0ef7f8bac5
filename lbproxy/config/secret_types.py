"""Secrets as values of the schema: each kind with what it must be. Pydantic's context says where to look them up."""

from pydantic import ValidationInfo

from lbproxy.config import values
from lbproxy.config.secret import Secrets
from lbproxy.settings import Secret
from lbproxy.wire.url import HttpUrl

_REDIS = ("redis://", "rediss://", "unix://")


def token(value: object, info: ValidationInfo) -> Secret:
    return _secrets(info).read(value, values.TOKEN_BYTES)


def any_secret(value: object, info: ValidationInfo) -> Secret:
    return _secrets(info).read(value)


def webhook_url(value: object, info: ValidationInfo) -> Secret:
    url = any_secret(value, info)
    HttpUrl.parse(url.value)
    return url


def redis_url(value: object, info: ValidationInfo) -> Secret:
    url = any_secret(value, info)
    if not url.value.startswith(_REDIS):
        raise ValueError("expected a URL that begins with redis://, rediss:// (TLS) or unix:// (a socket's path)")
    return url


def _secrets(info: ValidationInfo) -> Secrets:
    assert isinstance(info.context, Secrets)
    return info.context

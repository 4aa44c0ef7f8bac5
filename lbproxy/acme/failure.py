"""Why an order has failed, in words for the operator: what the authority says, or why it cannot be asked.

Knows the exceptions of the ACME library, and of what it uses.
"""

from dataclasses import dataclass

from acme import errors, messages

from lbproxy.http_client import reason_of

_TOLD = 3
_PASSING = ("badNonce", "serverInternal")  # they say nothing about the order
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Failure:
    why: str
    is_refused: bool  # the authority has answered, and would again


def failure_of(exc: Exception) -> Failure:
    match exc:
        case errors.ValidationError():
            return Failure(f"the authority could not validate {_validations(exc)}", is_refused=True)
        case errors.IssuanceError():
            return Failure(f"the authority refuses: {_problem(exc.error)}", is_refused=True)
        case messages.Error():
            return Failure(f"the authority refuses: {_problem(exc)}", is_refused=exc.code not in _PASSING)
        case errors.TimeoutError():
            return Failure("the authority did not finish in time", is_refused=True)
        case errors.Error():
            return Failure(f"the authority's answer makes no sense: {_short(exc)}", is_refused=True)
        case OSError() if type(exc).__module__.startswith("requests"):
            return Failure(f"the authority cannot be asked: {reason_of(_innermost(exc))}", is_refused=False)
        case OSError():
            return Failure(f"{exc.strerror or exc}: {exc.filename}", is_refused=False)
        case _:
            return Failure(f"the authority's answer makes no sense: {_short(exc)}", is_refused=True)


def _validations(exc: errors.ValidationError) -> str:
    told: list[str] = []
    for authorization in exc.failed_authzrs:
        name = authorization.body.identifier.value
        errors_of = [one.error for one in authorization.body.challenges if one.error is not None]
        told += [f"{name}: {_problem(error)}" for error in errors_of]
    more = f" (and {len(told) - _TOLD} more)" if len(told) > _TOLD else ""
    return f"{'; '.join(told[:_TOLD])}{more}"


def _problem(problem: messages.Error) -> str:
    """A problem document (RFC 7807), and those inside it."""
    inner = [f"{one.identifier.value}: {one.detail}" for one in problem.subproblems or () if one.identifier is not None]
    text = "; ".join([str(problem.detail or problem.title or ""), *inner[:_TOLD]])
    return f"{problem.code or problem.typ}: {text[:_LONGEST]}"


def _innermost(exc: BaseException) -> BaseException:
    """The library's exceptions stand around that of the system."""
    found = exc
    for _ in range(20):
        above = found.__cause__ or found.__context__
        if above is None:
            break
        found = above
    return found


def _short(exc: Exception) -> str:
    return (str(exc) or type(exc).__name__)[:_LONGEST]

import grpc
from support.each import each

from lbproxy.policy import grpc_status as codes
from lbproxy.wire.pages import REASONS


@each(
    [
        (404, "UNIMPLEMENTED"),
        (408, "DEADLINE_EXCEEDED"),
        (413, "RESOURCE_EXHAUSTED"),
        (431, "RESOURCE_EXHAUSTED"),
        (400, "INTERNAL"),
        (501, "UNIMPLEMENTED"),
        (502, "UNAVAILABLE"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ]
)
def test_an_error_has_the_status_that_grpc_clients_understand(case: tuple[int, str]) -> None:
    status, name = case
    assert codes.grpc_status(status) == grpc.StatusCode[name].value[0]


def test_every_error_of_ours_is_an_error_for_grpc_too() -> None:
    assert all(codes.grpc_status(status) for status in REASONS)


def test_what_a_drain_has_cut_is_unavailable_whatever_its_status() -> None:
    assert codes.grpc_status(504, "cut") == codes.UNAVAILABLE

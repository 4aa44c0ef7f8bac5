"""A client connection in the express lane. The class is a table of contents: every function over its record."""

from lbproxy.worker.express import body, finish, reply, request
from lbproxy.worker.express.record import ExpressRecord


class ExpressClient(ExpressRecord):
    """The record with its functions. Functions as class attributes cost a call what methods cost."""

    __slots__ = ()

    # The client's descriptor is ready
    on_ready = request.on_ready
    on_upload = body.on_upload
    on_flush = body.on_flush
    # The backend's descriptor is ready
    on_connected = request.on_connected
    on_reply = reply.on_reply
    on_body = body.on_body
    on_backend_takes = body.on_backend_takes
    # The reactor's turn, time, drains and ends
    begin = finish.begin
    on_pipelined = request.on_pipelined
    on_deadline = finish.on_deadline
    cut = finish.cut
    stop = finish.stop
    abort = finish.abort
    leave = finish.leave
    hand_over = finish.hand_over
    share = finish.share
    # An answer that was read
    answer = reply.answer
    answer_chunked = reply.answer_chunked
    begin_answer = reply.begin_answer
    # Actions that the table of phases names
    abandon = finish.abandon
    close = finish.close
    close_if_silent = finish.close_if_silent
    connect_refused = finish.connect_refused
    connect_too_slow = finish.connect_too_slow
    cut_short = finish.cut_short
    enter_buffered = finish.enter_buffered
    go_on = finish.go_on
    refuse_slow_head = finish.refuse_slow_head
    resume = finish.resume

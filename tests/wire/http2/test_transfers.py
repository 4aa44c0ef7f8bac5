"""Bodies both ways at once on several streams, with h2 on the other side: whatever the windows do, every body arrives
whole and in order, no window is broken, and what a stream held when it was reset does not count for ever."""

import random

import h2.events
import h2.exceptions
import h2.settings
import pytest
from support.http2_pair import POST, Pair, block

from lbproxy.errors import LbproxyError
from lbproxy.wire.http2.peer_settings import LocalSettings

OK = block((b":status", b"200"))
SETTINGS = LocalSettings(stream_window_bytes=65535, connection_window_bytes=200_000)


class Transfer:
    """One stream: what was sent each way, and what has come."""

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.sent = bytearray()  # by ours
        self.sent_by_h2 = bytearray()
        self.ended = self.ended_by_h2 = self.is_reset = False
        self.unused = 0  # that ours has received and not credited
        self.unacknowledged = 0  # that h2 has received


class Conversation:
    def __init__(self, seed: int, *, client: bool) -> None:
        self.draw = random.Random(seed)
        self.pair = Pair(client=client, settings=SETTINGS)
        self.client = client
        self.transfers: dict[int, Transfer] = {}
        self.heard = 0  # of what the owner was told

    def run(self) -> None:
        for _ in range(60):
            action = self.draw.choice(
                [self.open, self.send, self.send, self.h2_sends, self.h2_sends, self.use, self.trouble]
            )
            action()
            self.pump()
        self.finish()

    def pump(self) -> None:
        for event in self.pair.pump():
            if isinstance(event, h2.events.DataReceived):
                self.transfers[event.stream_id].unacknowledged += event.flow_controlled_length
        told = self.pair.owner.told
        for name, *facts in told[self.heard :]:
            assert name not in ("failed", "large_head")
            if name == "data":
                self.transfers[facts[0]].unused += facts[2]
            elif name == "reset":
                self.transfers[facts[0]].is_reset = True
        self.heard = len(told)

    def open(self) -> None:
        if len(self.transfers) >= 6:
            return
        ours, theirs = self.pair.ours, self.pair.theirs
        if self.client:
            stream_id = ours.open_stream()
            ours.send_head(stream_id, block(*POST))
            self.pair.pump()
            theirs.send_headers(stream_id, [(b":status", b"200")])
        else:
            stream_id = self.pair.ask(POST, end=False)
            ours.send_head(stream_id, OK)
        self.transfers[stream_id] = Transfer(stream_id)

    def one(self) -> Transfer | None:
        alive = [transfer for transfer in self.transfers.values() if not transfer.is_reset]
        return self.draw.choice(alive) if alive else None

    def send(self) -> None:
        transfer = self.one()
        if transfer is None or transfer.ended:
            return
        data = self.draw.randbytes(self.draw.choice([1, 100, 5000, 30_000, 100_000]))
        transfer.ended = self.draw.random() < 0.1
        transfer.sent += data
        self.pair.ours.send_data(transfer.id, data, end=transfer.ended)

    def h2_sends(self) -> None:
        transfer = self.one()
        if transfer is None or transfer.ended_by_h2:
            return
        theirs = self.pair.theirs
        room = min(theirs.local_flow_control_window(transfer.id), theirs.max_outbound_frame_size) - 30
        padding = self.draw.choice([None, None, 0, 20])
        data = self.draw.randbytes(max(0, min(room, self.draw.choice([0, 1, 3000, 16_000]))))
        if room > 0:
            transfer.ended_by_h2 = self.draw.random() < 0.1
            transfer.sent_by_h2 += data
            theirs.send_data(transfer.id, data, end_stream=transfer.ended_by_h2, pad_length=padding)

    def use(self) -> None:
        transfer = self.one()
        if transfer is None:
            return
        used = self.draw.randint(0, transfer.unused)
        transfer.unused -= used
        self.pair.ours.credit(transfer.id, used)
        self.acknowledge(transfer, self.draw.randint(0, transfer.unacknowledged))

    def acknowledge(self, transfer: Transfer, size: int) -> None:
        transfer.unacknowledged -= size
        self.pair.theirs.acknowledge_received_data(size, transfer.id)

    def trouble(self) -> None:
        draw, theirs = self.draw.random(), self.pair.theirs
        transfer = self.one()
        if draw < 0.3:
            code = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
            theirs.update_settings({code: self.draw.choice([0, 1000, 65535, 150_000])})
        elif draw < 0.4:
            theirs.update_settings({h2.settings.SettingCodes.MAX_FRAME_SIZE: self.draw.choice([16384, 40_000])})
        elif draw < 0.5 and transfer is not None and not (transfer.ended and transfer.ended_by_h2):
            transfer.is_reset = True
            if self.draw.random() < 0.5 and transfer.id in self.pair.ours.streams:
                self.pair.ours.reset(transfer.id, 8)
            elif transfer.id in self.pair.ours.streams:
                theirs.reset_stream(transfer.id)
            if transfer.unacknowledged:
                self.acknowledge(transfer, transfer.unacknowledged)

    def finish(self) -> None:
        """Everything is used and acknowledged; then nothing may be left anywhere."""
        theirs = self.pair.theirs
        # h2 refuses an empty frame where its window is below 0, which RFC 9113 (6.9) allows:
        # ours ends streams when the window is open again.
        theirs.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
        self.pump()
        for transfer in self.transfers.values():
            if not transfer.is_reset and not transfer.ended:
                transfer.ended = True
                self.pair.ours.send_data(transfer.id, b"", end=True)
        for _ in range(100):
            self.pump()
            for transfer in self.transfers.values():
                self.pair.ours.credit(transfer.id, transfer.unused)
                transfer.unused = 0
                if transfer.unacknowledged:
                    self.acknowledge(transfer, transfer.unacknowledged)
        self.pump()
        for transfer in self.transfers.values():
            if not transfer.is_reset:
                assert self.pair.received(transfer.id) == transfer.sent
                told = [call for call in self.pair.owner.of("data") if call[1] == transfer.id]
                assert b"".join(call[2] for call in told) == transfer.sent_by_h2
                assert any(call[4] for call in told) == transfer.ended_by_h2
        output = self.pair.ours.output
        assert (output.queued_bytes, output.unsent_bytes) == (0, 0)
        assert output.window_bytes == theirs.inbound_flow_control_window


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_bodies_arrive_whole_whatever_the_windows_do(client: bool) -> None:
    for seed in range(60):
        try:
            Conversation(seed, client=client).run()
        except (AssertionError, h2.exceptions.H2Error, LbproxyError) as exc:
            raise AssertionError(f"seed {seed}") from exc

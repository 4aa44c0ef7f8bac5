"""The side of a relay that a stream tells (lbproxy/worker/io/stream_end.py): it notes what it hears."""


class Listener:
    def __init__(self) -> None:
        self.heard: list[object] = []

    def on_stream_data(self, data: bytes) -> None:
        self.heard.append(data)

    def on_stream_end(self) -> None:
        self.heard.append("end")

    def on_stream_room(self) -> None:
        self.heard.append("room")

    def on_stream_gone(self) -> None:
        self.heard.append("gone")

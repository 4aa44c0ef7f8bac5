"""grpcio clients with streams of their own through reloads, beside unary calls one after the other.

Every message has a number and comes back. A stream that ends by itself has lost none and doubled none; any other one
was told goodbye, once, with status 14 behind a whole message; and no unary call fails.

python loadtest/grpc_reloads.py --streams 50 --reloads 10
"""

import json
import subprocess
import time

import rig

from support.grpc_client import Streams, calling  # isort: skip (rig knows where it is)

CONFIG = """
[proxy]
workers = {workers}

[[listener]]
address = "127.0.0.1:$port"
protocols = ["h2c"]

[pool.web]
command = "$grpc --aio --port {{port}}"
size = {backends}
protocol = "h2c"
health = {{ grpc = true }}
drain = {{ stream = "3s" }}

[pool.web.reload]
max_surge = {surge}

[log]
access = "off"
"""
FINITE = (20, 50, 100, 200)  # messages


def main() -> None:
    options = rig.arguments(__doc__.splitlines()[0], streams=50, reloads=10, backends=2, pause_ms=20)
    report = rig.Report(f"{options.streams} bidirectional streams of grpcio, {options.reloads} reloads")
    with rig.proxied(options, CONFIG) as lb:
        streams = Streams(lb.port, options.streams, pause_s=options.pause_ms / 1000, finite=FINITE)
        began = time.monotonic()
        streams.start()
        with calling(lb.port) as wrong:
            for number in range(options.reloads):
                streams.over.wait(0.5)  # it is set behind the reloads
                done = subprocess.run(lb.command("reload", "--json"), capture_output=True, text=True, check=False)
                verdict = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
                held = done.returncode == 0 and verdict.get("failed") == 0 and verdict.get("cut") == 0
                report.promise(held, f"reload {number + 1}: {done.returncode} {done.stdout[-300:]}{done.stderr[-300:]}")
        streams.stop()
        took_s = time.monotonic() - began
    ended, told, finished = streams.ended, streams.told, streams.finished
    waits = sorted(one.pushback_ms or 0 for one in told)
    report.line("streams", f"{len(ended)} in {took_s:.1f} s")
    report.line("ended by themselves", f"{len(finished)}, {sum(len(one.got) for one in finished)} messages")
    report.line("told goodbye (14)", f"{len(told)}, {sum(one.sent - len(one.got) for one in told)} messages unanswered")
    report.line("grpc-retry-pushback-ms", f"{waits[0]} to {waits[-1]}" if waits else "-")
    report.promise(bool(told), "no stream was told goodbye")
    report.promise(not streams.wrong, f"{len(streams.wrong)} streams are wrong: {streams.wrong[:3]}")
    report.promise(not streams.trouble, f"clients in trouble: {streams.trouble[:3]}")
    report.promise(not wrong, f"{len(wrong)} unary calls failed: {wrong[:3]}")
    report.end()


if __name__ == "__main__":
    main()

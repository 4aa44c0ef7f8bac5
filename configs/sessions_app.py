"""An example with logins: the sessions are in Redis, so that people stay logged in over a reload and over a crash.

    pip install redis; redis-server &
    lbproxy serve -n 2 -l 127.0.0.1:8080 -- python3 configs/sessions_app.py --port {port}

A session in the memory of a process ends with that process; here a process holds nothing. Any backend can answer any
request, so that no client has to stay with one (no `sticky`).

    /         who is logged in, how often this page was seen, and which backend answers
    /login    POST name=…: a new session
    /logout   POST: its end
    /healthz  what lbproxy probes. It does not ask Redis: without it every backend would be unhealthy at once, and no
              other one could do better
"""

import argparse
import html
import os
import secrets
import signal
import threading
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import redis

COOKIE = "session"
SESSION_S = 3600  # from the last request
LONGEST_BODY = 4096
IDLE_S = 30  # more than lbproxy keeps an idle connection (pool.timeouts.keepalive)
PAGE = """<!doctype html><meta charset="utf-8"><title>Sessions</title>
<p>{greeting}
<form method="post" action="/{action}">{fields}<button>{action}</button></form>
<p>slot {slot}, generation {generation}
"""


class Sessions:
    """Each session is a hash with a name and a counter. Redis forgets it when nobody has asked for SESSION_S."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, decode_responses=True, socket_timeout=2, socket_connect_timeout=2)

    def create(self, name: str) -> str:
        token = secrets.token_urlsafe(32)
        with self._redis.pipeline() as together:
            together.hset(_key(token), mapping={"name": name, "seen": 0})
            together.expire(_key(token), SESSION_S)
            together.execute()
        return token

    def visit(self, token: str) -> tuple[str, int] | None:
        """The name and the number of this visit; None: there is no such session (any more)."""
        name = self._redis.hget(_key(token), "name")
        if name is None:
            return None
        with self._redis.pipeline() as together:
            together.hincrby(_key(token), "seen", 1)
            together.expire(_key(token), SESSION_S)
            seen, _ = together.execute()
        return str(name), int(seen)

    def end(self, token: str) -> None:
        self._redis.delete(_key(token))


def _key(token: str) -> str:
    return f"session:{token}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    sessions: Sessions

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer(200, "ok")
        elif self.path == "/":
            self._with_sessions(self._show)
        else:
            self._answer(404, "there is nothing here")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > LONGEST_BODY:
            self.close_connection = True
            self._answer(413, "too long")
            return
        form = parse_qs(self.rfile.read(int(length)).decode(errors="replace"))
        self._name = form.get("name", [""])[0].strip()
        actions = {"/login": self._log_in, "/logout": self._log_out}
        if self.path in actions:
            self._with_sessions(actions[self.path])
        else:
            self._answer(404, "there is nothing here")

    def _with_sessions(self, action) -> None:
        try:
            action()
        except redis.RedisError as exc:
            self.log_error("Redis: %s", exc)
            self._answer(503, "the sessions cannot be reached; try again", {"Retry-After": "2"})

    def _show(self) -> None:
        token = self._token()
        visit = self.sessions.visit(token) if token else None
        backend = {"slot": os.environ.get("LBPROXY_SLOT", "-"), "generation": os.environ.get("LBPROXY_GENERATION", "-")}
        if visit is None:
            greeting, action, fields = "nobody is logged in", "login", '<input name="name" required>'
        else:
            greeting, action, fields = f"hello {html.escape(visit[0])}, visit {visit[1]}", "logout", ""
        page = PAGE.format(greeting=greeting, action=action, fields=fields, **backend)
        self._answer(200, page, {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"})

    def _log_in(self) -> None:
        if not self._name:
            self._answer(400, "a name is missing")
            return
        token = self.sessions.create(self._name)
        self._go_home(f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={SESSION_S}{self._secure()}")

    def _log_out(self) -> None:
        if token := self._token():
            self.sessions.end(token)
        self._go_home(f"{COOKIE}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0{self._secure()}")

    def _secure(self) -> str:
        return "; Secure" if self.headers.get("X-Forwarded-Proto") == "https" else ""

    def _token(self) -> str:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return ""
        return cookie.value if cookie is not None else ""

    def _go_home(self, cookie: str) -> None:
        self._answer(303, "", {"Location": "/", "Set-Cookie": cookie})

    def _answer(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """lbproxy has an access log."""


class Server(ThreadingHTTPServer):
    daemon_threads = True  # an idle connection does not hold up the end; lbproxy has drained the others before TERM
    request_queue_size = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    parser.add_argument("--redis", default=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"), metavar="URL")
    arguments = parser.parse_args()
    Handler.sessions = Sessions(arguments.redis)
    with Server(("127.0.0.1", arguments.port), Handler) as server:
        # `shutdown` waits for `serve_forever`, which a signal handler has interrupted: so it needs a thread.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        print(f"on port {arguments.port}", flush=True)
        server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()

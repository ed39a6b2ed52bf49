"""A paged HTTP API for tests: a real server, whose clock, whose rows and whose moods a test sets.

`/v1/deals`: rows, paged as `paging` says, filtered by `updated_since` and `updated_until`, sorted by time and id.
`/v1/deals/deleted`: ids of deleted rows, with a cursor. `/v1/changes`: every change, behind a cursor that stays good
until `forget_cursors`. `/v1/graphql`: the rows as a connection. `/token`: client credentials."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

START_S = 1_700_000_000

Reply = tuple[int, dict[str, str], Any]


@dataclass
class Asked:
    """`peer`: the common name of the client's certificate, where it showed one."""

    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any = None
    form: dict[str, str] = field(default_factory=dict)
    peer: str = ""


@dataclass
class Api:
    """`before` sees each request to an API path: it may change the rows, or answer in the place of the API."""

    paging: str = "cursor"
    page_rows: int = 20
    now: float = START_S
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    sorted: list[str] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    before: Callable[[Asked], Reply | None] = lambda _: None
    headers: dict[str, str] = field(default_factory=dict)
    token: str = ""
    tokens: int = 0
    era: int = 0
    etags: bool = False
    is_since_exclusive: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    # What a test does to it

    def put(self, number: int, text: str, at: float | None = None) -> None:
        """A row is written at `at`, and visible from now on."""
        with self.lock:
            row = {"id": number, "name": text, "updatedAt": iso(self.now if at is None else at)}
            if number in self.rows:
                self._unsort(self.rows[number])
            self.rows[number] = row
            insort(self.sorted, _key(row))
            self.log.append(row)

    def delete(self, number: int) -> None:
        with self.lock:
            self._unsort(self.rows.pop(number))
            self.deleted.append({"id": number, "deletedAt": iso(self.now)})
            self.log.append({"id": number, "deleted": True, "updatedAt": iso(self.now)})

    def forget_cursors(self) -> None:
        """All cursors and page tokens that were given."""
        self.era += 1

    def rotate(self) -> None:
        """The access token ends; the next is fetched at the token endpoint."""
        with self.lock:
            self.tokens += 1
            self.token = f"token-number-{self.tokens}"

    def _unsort(self, row: dict[str, Any]) -> None:
        del self.sorted[bisect_left(self.sorted, _key(row))]

    # Answers

    def reply(self, asked: Asked) -> Reply:
        with self.lock:
            if asked.path == "/token":
                if not self.token:
                    self.rotate()
                return 200, {}, {"access_token": self.token, "token_type": "bearer", "expires_in": 3600}
            self.asked.append(asked)
            told = self.before(asked)
            if told is not None:
                return told
            if self.token and asked.headers.get("authorization") != f"Bearer {self.token}":
                return 401, {}, {"error": "token"}
            handler = {
                "/v1/deals": self._deals,
                "/v1/deals/deleted": lambda a: self._feed(a, self.deleted),
                "/v1/changes": lambda a: self._feed(a, self.log),
                "/v1/graphql": self._graphql,
            }.get(asked.path)
            return handler(asked) if handler else (404, {}, {"error": "path"})

    def _deals(self, asked: Asked) -> Reply:
        since = asked.params.get("updated_since", "") + ("~" if self.is_since_exclusive else "")
        first, end = bisect_left(self.sorted, since), len(self.sorted)
        if until := asked.params.get("updated_until"):
            end = bisect_left(self.sorted, until)
        size = self.page_rows
        if self.paging == "offset":
            first += int(asked.params.get("offset", 0))
            return 200, {}, {"data": self._rows(first, min(end, first + min(size, int(asked.params["limit"]))))}
        if self.paging == "page":
            first += (int(asked.params["page"]) - 1) * min(size, int(asked.params["per_page"]))
            return 200, {}, {"data": self._rows(first, min(end, first + min(size, int(asked.params["per_page"]))))}
        after = asked.params.get("cursor") or ""
        if self.paging == "keyset" and "after_id" in asked.params:
            after = f"{asked.params['after_time']}|{int(asked.params['after_id']):012d}"
        elif after:
            era, _, after = base64.urlsafe_b64decode(after).decode().partition(":")
            if int(era) != self.era:
                return 410, {}, {"error": "expired"}
        first = max(first, bisect_right(self.sorted, after))
        page = self._rows(first, min(end, first + size))
        token = ""
        if first + size < end:
            token = base64.urlsafe_b64encode(f"{self.era}:{_key(page[-1])}".encode()).decode()
        body: dict[str, Any] = {"data": page}
        headers = {}
        following = urlencode({**asked.params, "cursor": token})
        if self.paging == "cursor":
            body |= {"next": token or None, "has_more": bool(token)}
        elif self.paging == "keyset":
            body["has_more"] = bool(token)
        elif token and self.paging == "link":
            headers["Link"] = f'</v1/deals?{following}>; rel="next", </v1/deals>; rel="first"'
        elif token and self.paging == "url":
            body["@odata.nextLink"] = f"http://{asked.headers['host']}/v1/deals?{following}"
        return 200, headers, body

    def _rows(self, first: int, end: int) -> list[dict[str, Any]]:
        return [self.rows[int(key.partition("|")[2])] for key in self.sorted[first:end]]

    def _feed(self, asked: Asked, log: list[dict[str, Any]]) -> Reply:
        era, at, since = (asked.params.get("cursor") or f"{self.era},0,{asked.params.get('since', '')}").split(",")
        if int(era) != self.era:
            return 410, {}, {"error": "expired"}
        page = log[int(at) : int(at) + self.page_rows]
        end = min(int(at) + self.page_rows, len(log))
        page = [row for row in page if row.get("updatedAt", "") >= since]
        return 200, {}, {"data": page, "cursor": f"{self.era},{end},{since}"}

    def _graphql(self, asked: Asked) -> Reply:
        variables = asked.body["variables"]
        first = bisect_right(self.sorted, variables.get("after") or "")
        page = self._rows(first, first + self.page_rows)
        info = {"hasNextPage": first + len(page) < len(self.sorted), "endCursor": _key(page[-1]) if page else None}
        return 200, {}, {"data": {"deals": {"edges": [{"node": row} for row in page], "pageInfo": info}}}


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _key(row: dict[str, Any]) -> str:
    return f"{row['updatedAt']}|{row['id']:012d}"


class RestServer:
    """`api` on a port of its own, until `close`; with `tls`, over that."""

    def __init__(self, api: Api, tls: ssl.SSLContext | None = None) -> None:
        class Handler(_Handler):
            pass

        Handler.api = api
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Type") == "application/json":
            self._answer(json.loads(body))
        else:
            self._answer(None, {name: values[0] for name, values in parse_qs(body.decode()).items()})

    def _answer(self, body: Any, form: dict[str, str] | None = None) -> None:
        api, split = self.api, urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        params = {name: values[0] for name, values in parse_qs(split.query).items()}
        status, extra, answer = api.reply(Asked(split.path, params, headers, body, form or {}, self._peer()))
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if api.etags and status == 200:
            extra = {**extra, "ETag": f'"{hash(content)}"'}
            if headers.get("if-none-match") == extra["ETag"]:
                status, content = 304, b""
        self.send_response(status)
        for name, value in {**api.headers, **extra}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _peer(self) -> str:
        shown: Any = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        return dict(entry[0] for entry in shown["subject"])["commonName"] if shown else ""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.api.now, usegmt=True)

    def log_message(self, *_: object) -> None:
        pass

"""A hub on this machine: it speaks the routes of the Hugging Face Hub that downloads use, and breaks where told.

``Hub`` serves repositories from memory or from files; large files, as the real one does, by a redirect to
a second server, the store. ``Fault`` has single answers fail, be cut off, wait, hold wrong bytes or lead
elsewhere. The hub's own client is what says whether it speaks the routes well: tests of the plugin begin with that.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.servers.hub_faults import Asked, Fault
from tests.servers.hub_files import Content, File, Repo, entries, sha1

__all__ = ["Asked", "Fault", "Hub", "hub"]

PIECE = 64 * 1024
TREE = re.compile(r"/api/models/(?P<repo>.+?)/tree/(?P<revision>[^/]+)")
INFO = re.compile(r"/api/models/(?P<repo>[^/]+(?:/[^/]+)?)")
INFO_AT = re.compile(r"/api/models/(?P<repo>.+?)/revision/(?P<revision>[^/]+)")
RESOLVE = re.compile(r"/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
RESOLVED = re.compile(r"/api/resolve-cache/models/(?P<repo>.+?)/(?P<revision>[0-9a-f]{40})/(?P<name>.+)")
STORED = re.compile(r"/store/(?P<sha256>[0-9a-f]{64})")


class Hub:
    """The server; ``url`` is what HF_ENDPOINT is to be."""

    def __init__(
        self, *, page: int = 1000, store_from: int = 10_000, tls: ssl.SSLContext | None = None
    ) -> None:
        self.page = page
        """Files per page of a listing."""
        self.store_from = store_from
        """Files of at least so many bytes lie in the store; names that end in .safetensors, .gguf or .bin always."""
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}
        """Old names of repositories, and the new ones."""
        self.tokens: dict[str, frozenset[str]] = {}
        """Tokens, and the private and gated repositories that each opens."""
        self.renewals: dict[str, str] = {}
        """Tokens that renew others, each once, and the new ones."""
        self.faults: list[Fault] = []
        self.xet = False
        """Whether the store offers its files by the xet protocol too, which it doesn't speak."""
        self.down = False
        """Whether every answer is 503."""
        self.asked: list[Asked] = []
        self.sent = 0
        """Bytes of files that went out."""
        self._stored: dict[str, File] = {}
        self._turn = threading.Lock()
        self._over = threading.Event()
        self._servers = {name: _Server(self, name, tls) for name in ("hub", "store")}
        self.ports = {name: each.server_port for name, each in self._servers.items()}
        host = "http://127.0.0.1" if tls is None else "https://localhost"
        self.url = f"{host}:{self.ports['hub']}"
        self.store_url = f"{host}:{self.ports['store']}"

    def put(
        self,
        repo: str,
        files: Mapping[str, Content],
        *,
        revision: str = "main",
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """Commit files, all that there are from then on; the commit."""
        kept = {name: File.of(name, content, self.store_from) for name, content in files.items()}
        self._stored |= {file.sha256: file for file in kept.values() if file.sha256 is not None}
        text = f"{repo} {revision} {[(name, file.oid) for name, file in sorted(kept.items())]}"
        commit = sha1(text.encode())
        found = self.repos.setdefault(repo, Repo())
        found.private, found.gated = private, gated
        found.commits[commit] = kept
        found.refs[revision] = commit
        return commit

    def count(self, on: str) -> int:
        """Requests in whose "SERVER METHOD PATH" a pattern is found."""
        return sum(bool(re.search(on, f"{each.server} {each.method} {each.path}")) for each in self.asked)

    def close(self) -> None:
        """End, and drop whoever is connected. Idempotent."""
        if self._over.is_set():
            return
        self._over.set()
        for server in self._servers.values():
            server.end()

    def _fault(self, request: str) -> Fault | None:
        with self._turn:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.on, request):
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def hub(*, page: int = 1000, tls: ssl.SSLContext | None = None) -> Iterator[Hub]:
    """A hub, ended in the end."""
    server = Hub(page=page, tls=tls)
    try:
        yield server
    finally:
        server.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, owner: Hub, name: str, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.owner, self.name = owner, name
        self._open: set[_Handler] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
        for handler in list(self._open):
            with suppress(OSError):
                handler.connection.shutdown(2)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may go."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server._open.add(self)

    def finish(self) -> None:
        self.server._open.discard(self)
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Tests ask ``asked``."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        """A token for one that renews it."""
        hub = self.server.owner
        given = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        renewed = hub.renewals.pop(given.get("refresh_token", [""])[0], None)
        hub.asked.append(Asked(self.server.name, self.command, self.path, {}))
        if self.path != "/oauth/token" or renewed is None:
            self._say(400, b'{"error": "invalid_grant"}', {"Content-Type": "application/json"})
        else:
            hub.tokens[renewed] = frozenset()
            answer = {"access_token": renewed, "expires_in": 3600, "token_type": "bearer"}
            self._say(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _answer(self) -> None:
        hub, server = self.server.owner, self.server.name
        headers = {name.lower(): value for name, value in self.headers.items()}
        hub.asked.append(Asked(server, self.command, self.path, headers))
        fault = hub._fault(f"{server} {self.command} {self.path}")
        if fault is not None and fault.status is not None:
            self._say(fault.status, fault.body, fault.headers)
            return
        if hub.down:
            self._say(503, b"down", {})
            return
        url = urlsplit(self.path)
        routes = (
            ((STORED, self._stored),)
            if server == "store"
            else (
                (TREE, self._tree),
                (INFO_AT, self._info),
                (RESOLVED, self._resolve),
                (RESOLVE, self._resolve),
                (INFO, self._info),
            )
        )
        for pattern, answer in routes:
            if found := pattern.fullmatch(url.path):
                answer({name: unquote(text) for name, text in found.groupdict().items()}, fault)
                return
        self._say(404, b"no such page", {})

    # -- routes

    def _info(self, asked: Mapping[str, str], fault: Fault | None) -> None:
        opened = self._open(asked, of_files=False)
        if opened is None:
            return
        repo, commit = opened
        answer = {
            "_id": "0" * 24,
            "id": asked["repo"],
            "modelId": asked["repo"],
            "sha": commit,
            "private": repo.private,
            "gated": "auto" if repo.gated else False,
            "disabled": False,
            "tags": [],
            "siblings": [{"rfilename": name} for name in repo.commits[commit]],
        }
        self._say(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, fault)

    def _tree(self, asked: Mapping[str, str], fault: Fault | None) -> None:
        opened = self._open(asked, of_files=False)
        if opened is None:
            return
        repo, commit = opened
        query = parse_qs(urlsplit(self.path).query)
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        listed = entries(repo.commits[commit], recursive=recursive, xet=self.server.owner.xet)
        start = int(query.get("cursor", ["0"])[0])
        stop = start + self.server.owner.page
        headers = {"Content-Type": "application/json"}
        if stop < len(listed):
            path = urlsplit(self.path).path
            kept = f"recursive={str(recursive).lower()}&cursor={stop}"
            headers["Link"] = f'<{self.server.owner.url}{path}?{kept}>; rel="next"'
        self._say(200, json.dumps(listed[start:stop]).encode(), headers, fault)

    def _resolve(self, asked: Mapping[str, str], fault: Fault | None) -> None:
        opened = self._open(asked, of_files=asked["name"] != "README.md")
        if opened is None:
            return
        repo, commit = opened
        known = {"X-Repo-Commit": commit}
        file = repo.commits[commit].get(asked["name"])
        if file is None:
            self._refuse(404, "EntryNotFound", "Entry not found", known)
            return
        if file.sha256 is not None:
            known |= {
                "X-Linked-Size": str(file.size),
                "X-Linked-Etag": f'"{file.sha256}"',
                "ETag": f'"{file.oid}"',
                "Location": f"{self.server.owner.store_url}/store/{file.sha256}?Signature=secret",
            }
            if self.server.owner.xet:
                route = f"{self.server.owner.url}/api/models/{asked['repo']}/xet-read-token/{commit}"
                known |= {"X-Xet-Hash": file.sha256, "X-Xet-Refresh-Route": route}
            self._say(302, b"Found. Redirecting", known)
        elif not urlsplit(self.path).path.startswith("/api/"):
            where = (
                f"/api/resolve-cache/models/{quote(asked['repo'])}/{commit}/{quote(asked['name'], safe='')}"
            )
            known |= {"X-Linked-Etag": f'"{file.oid}"', "Location": f"{where}?etag=%22{file.oid}%22"}
            self._say(307, b"Temporary Redirect", known)
        else:
            self._send_file(file, {**known, "ETag": f'"{file.oid}"'}, fault)

    def _stored(self, asked: Mapping[str, str], fault: Fault | None) -> None:
        file = self.server.owner._stored.get(asked["sha256"])
        if file is None:
            self._say(404, b"", {})
        else:
            self._send_file(file, {"ETag": f'"{file.sha256}"'}, fault)

    # -- who may see what

    def _open(self, asked: Mapping[str, str], *, of_files: bool) -> tuple[Repo, str] | None:
        """The repository and the commit; None where the answer has gone out already."""
        hub, name = self.server.owner, asked["repo"]
        if name in hub.moved:
            where = self.path.replace(quote(name), quote(hub.moved[name]), 1)
            self._say(307, b"Temporary Redirect", {"Location": where})
            return None
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in hub.tokens:
            self._say(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        allowed = hub.tokens.get(token, frozenset())
        repo = hub.repos.get(name)
        if repo is None or (repo.private and name not in allowed):
            if token:
                self._refuse(404, "RepoNotFound", "Repository not found")
            else:
                self._refuse(401, "RepoNotFound", "Invalid username or password.")
            return None
        if of_files and repo.gated and name not in allowed:
            message = (
                f"Access to model {name} is restricted. You must have access to it and be authenticated."
            )
            self._refuse(403 if token else 401, "GatedRepo", message)
            return None
        revision = asked.get("revision") or "main"
        commit = revision if revision in repo.commits else repo.refs.get(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo, commit

    # -- answers

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        told = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self._say(status, json.dumps({"error": message}).encode(), {**(headers or {}), **told})

    def _send_file(self, file: File, headers: Mapping[str, str], fault: Fault | None) -> None:
        start, stop = 0, file.size
        status = 200
        told = dict(headers) | {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start = int(found[1])
            if start >= file.size:
                self._say(416, b"", {"Content-Range": f"bytes */{file.size}"})
                return
            stop = min(int(found[2]) + 1, file.size) if found[2] else file.size
            status = 206
            told["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
        self._head(status, stop - start, told)
        if self.command == "HEAD":
            return
        if isinstance(file.content, bytes):
            self._send(file.content[start:stop], 0, stop - start, fault)
            return
        with file.content.open("rb") as opened:
            opened.seek(start)
            done = 0
            while done < stop - start:
                piece = opened.read(min(PIECE, stop - start - done))
                self._send(piece, done, stop - start, fault)
                done += len(piece)

    def _send(self, content: bytes, before: int, size: int, fault: Fault | None) -> None:
        hub = self.server.owner
        for at in range(0, len(content), PIECE):
            piece = content[at : at + PIECE]
            done = before + at
            if fault is not None and fault.wrong and done + len(piece) == size:
                piece = piece[:-1] + bytes([piece[-1] ^ 1])
            for limit in (fault.cut_after, fault.stall_after) if fault is not None else ():
                if limit is not None and done + len(piece) > limit:
                    self._write(piece[: max(0, limit - done)])
                    if fault is not None and limit == fault.stall_after:
                        fault.stalled.set()
                        hub._over.wait()
                    self.close_connection = True
                    raise ConnectionAbortedError
            self._write(piece)

    def _write(self, piece: bytes) -> None:
        self.wfile.write(piece)
        with self.server.owner._turn:
            self.server.owner.sent += len(piece)

    def _say(self, status: int, body: bytes, headers: Mapping[str, str], fault: Fault | None = None) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            if fault is None:
                self.wfile.write(body)
            else:
                self._send(body, 0, len(body), fault)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

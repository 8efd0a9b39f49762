"""A W&B server on loopback that takes a run in, or misbehaves as it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "0123456789abcdef" * 2 + "01234567"  # what W&B's keys look like: 40 hex digits
SLOW = 20.0  # seconds that a slow server takes for one answer


class Server(ThreadingHTTPServer):
    """Answers on a free port of loopback.

    Attributes:
        manner: ``good``; ``silent`` (takes connections and never answers), ``500``, ``401``,
            ``slow``, or ``drop`` (hangs up on whoever asks).
        manner_after: Another manner from the first row of figures on; None for none.
        asked: Names of the operations, in their order.
        rows: Rows of figures that arrived.
        stopped: Set when the server closes, so that silent answers end.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, manner: str, manner_after: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.manner, self.manner_after = manner, manner_after
        self.asked: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._take()

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

    def _take(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/file_stream") and server.manner_after is not None:
            server.manner, server.manner_after = server.manner_after, None
        found = re.search(rb"(?:query|mutation)\s+(\w+)", body)
        server.asked.append(found[1].decode() if found else self.path)
        match server.manner:
            case "silent":
                server.stopped.wait()
                self.close_connection = True
                return
            case "drop":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            case "500":
                return self._answer({"errors": [{"message": "broken"}]}, 500)
            case "401":
                return self._answer({"errors": [{"message": "unauthorized"}]}, 401)
            case "slow":
                if server.stopped.wait(SLOW):
                    self.close_connection = True
                    return
        if self.path.endswith("/file_stream"):
            sent = json.loads(body)
            for line in sent.get("files", {}).get("wandb-history.jsonl", {}).get("content", []):
                server.rows.append(json.loads(line))
            return self._answer({"exitcode": None, "limits": {}})
        if self.path.endswith("/graphql"):
            return self._answer(self._graphql(json.loads(body)))
        self._answer({})

    def _graphql(self, asked: dict[str, Any]) -> dict[str, Any]:
        query, given = asked.get("query", ""), asked.get("variables") or {}
        project = {"id": "cA==", "name": "lightning_zoo", "entity": {"id": "ZQ==", "name": "me"}}
        if "upsertBucket" in query:
            name = given.get("name") or given.get("id") or "run"
            bucket = {
                "id": "cg==", "name": name, "displayName": given.get("displayName") or name,
                "description": None, "config": None, "sweepName": None, "historyLineCount": 0,
                "project": project,
            }  # fmt: skip
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if "viewer" in query or "serverInfo" in query:
            viewer = {
                "id": "dg==", "entity": "me", "username": "me", "flags": "{}", "email": "me@x.y",
                "teams": {"edges": []},
            }  # fmt: skip
            info = {
                "cliVersionInfo": {"min_cli_version": "0.1.0", "max_cli_version": "99.0.0"},
                "latestLocalVersionInfo": None, "features": [],
            }  # fmt: skip
            return {"data": {"viewer": viewer, "serverInfo": info}}
        if "createRunFiles" in query:
            files = [
                {"name": name, "uploadUrl": f"{self.server.url}/storage/{i}"}
                for i, name in enumerate(given.get("files") or [])
            ]
            made = {"runID": "cg==", "uploadHeaders": [], "files": files}
            return {"data": {"createRunFiles": made}}
        if "createArtifact(" in query:
            made = {
                "id": "YQ==", "digest": given.get("digest"), "state": "COMMITTED", "aliases": [],
                "artifactSequence": {"id": "cw==", "latestArtifact": None},
            }  # fmt: skip
            return {"data": {"createArtifact": {"artifact": made}}}
        if "query ArtifactByID" in query:
            artifact = {
                "__typename": "Artifact", "id": "YQ==", "versionIndex": 0, "metadata": "{}",
                "artifactSequence": {"__typename": "ArtifactSequence", "name": "x",
                                     "project": project | {"internalId": "cA=="}},
                "artifactType": {"name": "model"}, "description": None, "tags": [],
                "ttlDurationSeconds": -1, "ttlIsInherited": False, "historyStep": None,
                "state": "COMMITTED", "size": 1, "digest": "0", "commitHash": "0",
                "fileCount": 2, "createdAt": "2026-01-01T00:00:00Z", "updatedAt": None,
                "aliases": [],
            }  # fmt: skip
            return {"data": {"artifact": artifact}}
        if "query ArtifactType(" in query:
            return {"data": {"project": {"artifact": None}}}
        return {"data": {}}

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(content).encode()
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)


@contextlib.contextmanager
def serve(manner: str = "good", manner_after: str | None = None) -> Iterator[Server]:
    """Run a server while the context lasts."""
    server = Server(manner, manner_after)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


def run_trials(folder: Path, trials: Sequence[dict[str, Any]], at_once: int = 2) -> dict[str, Any]:
    """Let ``wandb_trials.py`` train on the photos in ``data/`` of a folder; return its answers."""
    here = Path(__file__).parent
    asked = {"trials": trials, "data": str(folder / "data"), "at_once": at_once}
    # W&B's own process, if a test before this one has started it, is not the trials'
    env = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    done = subprocess.run(
        [sys.executable, str(here / "wandb_trials.py")],
        input=json.dumps(asked),
        cwd=folder,
        env={**env, "PYTHONPATH": str(here.parent)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0
    return json.loads(done.stdout)

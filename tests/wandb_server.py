"""As much of a W&B server as ``wandb sync`` and a workspace need to run through; no W&B."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "a" * 40


@dataclass
class Server:
    """What was asked of it, in order.

    Attributes:
        url: Its address.
        requests: Paths of all requests.
        asked: Operations of GraphQL and what they were given.
        committed: Artifacts that were uploaded: id by collection and digest.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    committed: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, operation: str) -> list[dict[str, Any]]:
        return [given for name, given in self.asked if name == operation]

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        blank = {"name": "f", "displayName": "f", "uploadHeaders": []}
        upload = f"{self.url}/upload"
        if operation == "UpsertBucket":
            owner = {"id": "P", "name": "collabteam", "entity": {"id": "E", "name": "team"}}
            bucket = {"id": "B", "name": given["name"], "displayName": "", "description": "",
                      "config": "{}", "sweepName": None, "project": owner,
                      "historyLineCount": 0}  # fmt: skip
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateArtifact":
            key = (given["artifactCollectionName"], given["digest"])
            state = "COMMITTED" if key in self.committed else "PENDING"
            name = self.committed.setdefault(key, f"A{len(self.committed)}")
            artifact = {"id": name, "state": state,
                        "artifactSequence": {"id": "S", "latestArtifact": None}}  # fmt: skip
            return {"createArtifact": {"artifact": artifact}}
        if operation == "CreateArtifactManifest":
            file = {"id": "F", "uploadUrl": upload if given["includeUpload"] else None} | blank
            return {"createArtifactManifest": {"artifactManifest": {"id": "M", "file": file}}}
        if operation == "CreateArtifactFiles":
            nodes = [
                {"id": "F", "uploadUrl": upload, "storagePath": None,
                 "uploadMultipartUrls": None, "artifact": {"id": one["artifactID"]}}
                | blank | {"name": one["name"], "displayName": one["name"]}
                for one in given["artifactFiles"]
            ]  # fmt: skip
            files = {"edges": [{"node": node} for node in nodes]}
            return {"createArtifactFiles": {"files": files}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": upload} for name in given["files"]]
            return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}
        user = {"id": "U", "entity": "team", "username": "u", "email": "", "flags": "{}",
                "teams": {"edges": []}}  # fmt: skip
        others: dict[str, dict[str, Any]] = {
            "Viewer": {"viewer": user},
            "GetDefaultEntity": {"viewer": {"id": "U", "entity": "team"}},
            "ServerFeaturesQuery": {"serverInfo": {"features": []}},
            "CommitArtifact": {"commitArtifact": {"artifact": {"id": "A", "digest": "d"}}},
            "UseArtifact": {"useArtifact": {"artifact": {"id": "A"}}},
            "UpsertView2": {
                "upsertView": {"view": {"id": "V", "name": given.get("name")}, "inserted": True}
            },
        }
        return others[operation]


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            server.requests.append(self.path)
            status, said = 200, {}
            if self.path == "/graphql":
                asked = json.loads(body)
                found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
                assert found is not None
                given = asked.get("variables") or {}
                given = given.get("input", given)
                server.asked.append((found[1], given))
                if KEY not in _key(self.headers.get("Authorization", "")):
                    status, said = 401, {"errors": [{"message": "who are you?"}]}
                else:
                    said = {"data": server.answer(found[1], given)}
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_address[1]}"
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()


def _key(authorization: str) -> str:
    """What stands behind ``Basic`` or ``Bearer``, readable."""
    import base64

    kind, _, text = authorization.partition(" ")
    return base64.b64decode(text).decode() if kind == "Basic" else text

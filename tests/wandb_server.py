"""A server on loopback that speaks what runs, agents, `wandb sync` and dashboards need of the protocol of W&B 0.31.

It hands out grids to agents, and keeps runs, artefacts and saved views. A request that it does not know is kept in
`unknown`. It can fall silent: `reachable`, and `cut_after`, the request after which it does. It refuses some requests:
`refused`, the status and the message by request.
"""

import base64
import gzip
import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import yaml


class Server:
    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.waiting: list[dict[str, Any]] = []
        self.sweep = ""
        self.unknown: list[str] = []
        self.artefacts: dict[str, dict[str, Any]] = {}
        self.projects: list[str] = []
        self.views: dict[str, dict[str, Any]] = {}
        self.bodies: list[bytes] = []  # all that was ever sent here
        self.reachable, self.cut_after = True, ""
        self.refused: dict[str, tuple[int, str]] = {}
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"server_state": self}))
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that leave are normal
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def env(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "x" * 40, "WANDB_ERROR_REPORTING": "false"}

    def asked(self, operation: str) -> list[dict[str, Any]]:
        """Return the variables of all requests with a name."""
        requests = [json.loads(body) for body in self.bodies if body.startswith(b"{")]
        found = [each for each in requests if re.search(rf"(query|mutation) {operation}\b", each.get("query", ""))]
        return [each["variables"] for each in found]

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "patchbench", "entity": {"id": "e", "name": "someone"}}
        match operation:
            case "Viewer":
                names = dict.fromkeys(("entity", "username", "name", "email"), "someone")
                edges: dict[str, list] = {"edges": []}
                return {"viewer": {"id": "v", "admin": False, "flags": "{}", "teams": edges, "apiKeys": edges} | names}
            case "GetDefaultEntity":
                return {"viewer": {"id": "v", "entity": "someone"}}
            case "GetProjects":
                node = {"id": "p", "entityName": "someone", "createdAt": "2026-01-01T00:00:00", "isBenchmark": False}
                edges = [{"node": node | {"name": name, "user": None}} for name in self.projects]
                return {"models": {"pageInfo": {"endCursor": None, "hasNextPage": False}, "edges": edges}}
            case "CreateProject":
                self.projects.append(given["input"]["name"])
                return {"upsertModel": {"inserted": True}}
            case "UpsertView2" | "upsertView":
                name = given.get("id") or f"view{len(self.views)}"
                view = {"id": name, "name": given["name"], "displayName": given["displayName"]}
                view |= {"description": "", "updatedAt": None, "type": given["type"], "spec": given["spec"]}
                self.views[name] = view | {
                    "project": {"id": "p", "name": given["projectName"], "entityName": "someone"}
                }
                return {"upsertView": {"view": self.views[name], "inserted": "id" not in given}}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "OrganizationCoreWeaveOrganizationID":
                return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}
            case "UpsertSweep":
                self.sweep = given["config"]
                axes = {key: axis["values"] for key, axis in yaml.safe_load(self.sweep)["parameters"].items()}
                self.waiting = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
                sweep = {"id": "s", "name": "sweep", "config": self.sweep, "project": project}
                return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}
            case "SweepWithRuns":
                sweep = dict.fromkeys(("createdAt", "heartbeatAt", "updatedAt", "bestLoss", "controller", "scheduler"))
                sweep |= {"id": "s", "name": "sweep", "method": "grid", "state": "RUNNING", "description": ""}
                sweep |= {"config": self.sweep, "earlyStopJobRunning": False, "runs": {"edges": []}}
                return {"project": {"sweep": sweep}}
            case "CreateAgent":
                return {"createAgent": {"agent": {"id": "a"}}}
            case "Heartbeat":
                commands = []
                if not any(json.loads(given.get("runState") or "{}").values()):
                    commands = [self.next_command()]
                return {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(commands)}}
            case "UpsertBucket":
                known = given["name"] in self.runs
                run = self.runs.setdefault(given["name"], {"summary": {}, "lines": {}, "files": {}})
                kept = ("sweep", "project", "entity", "groupName", "jobType", "tags", "displayName")
                run |= {key: given[key] for key in kept if given.get(key)}
                if given.get("config"):
                    run["config"] = {key: entry["value"] for key, entry in json.loads(given["config"]).items()}
                bucket = dict.fromkeys(("displayName", "description", "sweepName"), "") | {"id": given["name"]}
                bucket |= {"name": given["name"], "config": "{}", "historyLineCount": len(run["lines"])}
                return {"upsertBucket": {"inserted": not known, "bucket": bucket | {"project": project}}}
            case "RunResumeStatus":
                return {"model": project | {"bucket": self.resumed(given["name"])}}
            case "CreateRunFiles":
                files = [
                    {"name": name, "uploadUrl": f"{self.url}/put/{given['run']}/{name}"} for name in given["files"]
                ]
                return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
            case "ArtifactType":
                return {"project": {"artifact": None}}
            case "CreateArtifact":
                made = given["input"]
                self.artefacts[made["artifactCollectionName"]] = made | {"files": {}}
                created = {"id": made["artifactCollectionName"], "state": "PENDING"}
                return {"createArtifact": {"artifact": created | {"artifactSequence": {"latestArtifact": None}}}}
            case "CreateArtifactManifest" | "UpdateArtifactManifest":
                name = given.get("artifactID") or given["artifactManifestID"]
                file = {"id": "f", "uploadUrl": f"{self.url}/artefact/{name}/manifest.json", "uploadHeaders": []}
                key = operation[0].lower() + operation[1:]
                return {key: {"artifactManifest": {"id": name, "file": file}}}
            case "CreateArtifactFiles":
                nodes = []
                for file in given["input"]["artifactFiles"]:
                    name = file["artifactID"]
                    url = f"{self.url}/artefact/{name}/{file['name']}"
                    node = {
                        "storagePath": file["name"],
                        "uploadUrl": url,
                        "uploadHeaders": [],
                        "artifact": {"id": name},
                    }
                    nodes.append({"node": node | {"uploadMultipartUrls": None}})
                return {"createArtifactFiles": {"files": {"edges": nodes}}}
            case "CommitArtifact":
                return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}
        self.unknown.append(operation)
        return {}

    def next_command(self) -> dict[str, Any]:
        if not self.waiting:
            return {"type": "exit"}
        args = {key: {"value": value} for key, value in self.waiting.pop(0).items()}
        name = base64.b32encode(str(len(self.waiting)).encode()).decode().strip("=").lower()
        return {"type": "run", "run_id": f"run{name}", "args": args, "program": "train.py"}

    def resumed(self, name: str) -> dict[str, Any] | None:
        """Return the data that a resumed run needs about its earlier part."""
        if name not in self.runs:
            return None
        run = self.runs[name]
        config = {key: {"value": value} for key, value in run.get("config", {}).items()}
        tail = [line for _, line in sorted(run["lines"].items())[-1:]]
        counts = {"historyLineCount": len(run["lines"]), "eventsLineCount": 0, "logLineCount": 0}
        told = {"summaryMetrics": run["summary"], "config": config, "historyTail": tail, "eventsTail": []}
        told = {key: json.dumps(value) for key, value in (told | {"wandbConfig": {"t": {}}}).items()}
        return counts | told | {"id": name, "name": name, "displayName": "", "tags": run.get("tags", []), "notes": ""}

    def history(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for _, line in sorted(self.runs[run]["lines"].items())]

    def stream(self, run: str, body: dict[str, Any]) -> None:
        if chunk := body.get("files", {}).get("wandb-history.jsonl"):
            for number, line in enumerate(chunk["content"], chunk["offset"]):
                self.runs[run]["lines"][number] = line
        if chunk := body.get("files", {}).get("wandb-summary.json"):
            self.runs[run]["summary"] |= json.loads(chunk["content"][-1])
        if body.get("complete"):
            self.runs[run]["exit_code"] = body.get("exitcode")


class Handler(BaseHTTPRequestHandler):
    server_state: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        body, path = self.rfile.read(int(self.headers.get("Content-Length") or 0)), urlsplit(self.path).path
        if not self.server_state.reachable:
            self.close_connection = True
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server_state.bodies.append(body)
        said: dict[str, Any] = {}
        status = 200
        if path == "/graphql":
            asked = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            operation = asked.get("operationName") or (found[1] if found else asked["query"])
            if operation in self.server_state.refused:
                status, message = self.server_state.refused[operation]
                said = {"errors": [{"message": message, "path": [operation]}]}
            else:
                said = {"data": self.server_state.answer(operation, asked.get("variables") or {})}
            if operation == self.server_state.cut_after:
                self.server_state.reachable = False
        elif path.endswith("/file_stream"):
            self.server_state.stream(path.split("/")[-2], json.loads(body))
        elif found := re.fullmatch(r"/put/([^/]+)/(.+)", path):
            self.server_state.runs[found[1]]["files"][found[2]] = body
        elif found := re.fullmatch(r"/artefact/([^/]+)/(.+)", path):
            self.server_state.artefacts[found[1]]["files"][found[2]] = body
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = handle_any

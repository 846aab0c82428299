# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""A small Hugging Face Hub for tests: models and data sets in memory, on a port of this machine.

It speaks the part of the Hub's protocol that `push_to_hub`, `from_pretrained` and `load_dataset`
use: repositories, commits with small files inline and large ones by git LFS, branches, tags,
downloads. Data sets are repositories called `datasets/user/name`. Whoever sends
a token, any token, is `user` and may do everything; private repositories are hidden from others.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin")


class HubError(Exception):
    """An answer other than success; `code` is what huggingface_hub chooses its exception by."""

    def __init__(self, status: int, message: str, code: str | None = None, **details: str):
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details


@dataclass(frozen=True)
class Blob:
    """A file's content."""

    data: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        """The identity of an LFS file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """The identity git gives the content."""
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass
class Repository:
    """Commits (all the files of each), and the names that point to them."""

    private: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.add_commit("main", {})

    def add_commit(self, branch: str, files: dict[str, Blob]) -> str:
        """Make a commit the head of a branch; returns its hash."""
        content = {path: blob.sha256 for path, blob in files.items()}
        text = json.dumps([len(self.commits), branch, content], sort_keys=True)
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str:
        """The commit that a branch, a tag or a commit hash stands for."""
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        if commit not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """The content of every file at a revision, by path."""
        return {path: blob.data for path, blob in self.commits[self.resolve(revision)].items()}


class HubServer:
    """The Hub, served from a thread while the context is open.

    Attributes:
        url: for HF_ENDPOINT.
        repositories: by `user/name`, or `datasets/user/name`.
        uploads: what was uploaded by LFS, by SHA-256.
    """

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


ROUTES: list[tuple[str, re.Pattern, Callable]] = []
REPO = r"(?P<repo>(?:datasets/)?[^/]+/[^/]+)"
API = r"/api/(?:models/|(?=datasets/))" + REPO


def route(method: str, path: str) -> Callable:
    """Register a method of the handler; its arguments are the named groups of `path`."""

    def register(function: Callable) -> Callable:
        ROUTES.append((method, re.compile(path), function))
        return function

    return register


def entry(files: dict[str, Blob], path: str) -> dict:
    """Describe a file, or a folder, which is all that is no file."""
    if path not in files:
        return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest()}
    blob = files[path]
    return {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.data)}


class _Handler(BaseHTTPRequestHandler):
    """One request. A route returns what becomes JSON, or None if it has answered itself."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *args: object) -> None:
        """Say nothing: a test's output is for its failures."""

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        try:
            with self.hub.lock:
                answer = self._answer()
            if answer is not None:
                self._send(200, json.dumps(answer).encode())
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": str(error)}
            headers = {name: value for name, value in headers.items() if value}
            body = {"error": str(error), **error.details}
            self._send(error.status, json.dumps(body).encode(), headers)

    def _answer(self) -> Any:
        path = urlsplit(self.path).path
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, function in ROUTES:
            match = pattern.fullmatch(path)
            if match and wanted == method:
                return function(self, **{k: unquote(v or "") for k, v in match.groupdict().items()})
        raise HubError(404, f"{method} {path} is not part of this test server")

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def _is_user(self) -> bool:
        return "Authorization" in self.headers

    def _repository(self, name: str, write: bool = False) -> Repository:
        repository = self.hub.repositories.get(name)
        if not self._is_user and (write or repository is None or repository.private):
            # As the real Hub, which does not tell strangers what exists.
            raise HubError(401, "Invalid username or password.", "RepoNotFound")
        if repository is None:
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repository

    def _json(self) -> Any:
        return json.loads(self.body)

    @route("POST", "/api/repos/create")
    def create(self) -> dict:
        if not self._is_user:
            raise HubError(401, "Invalid username or password.")
        wanted = self._json()
        name = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            raise HubError(409, "You already created this model repo", url=url)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.repositories[name] = Repository(private)
        return {"url": url, "name": name, "id": name}

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self) -> dict:
        return {"errors": [], "warnings": []}

    @route("GET", f"{API}(/revision/(?P<revision>[^/]+))?")
    def info(self, repo: str, revision: str) -> dict:
        repository = self._repository(repo)
        commit = repository.resolve(revision or "main")
        return {
            "id": repo,
            "sha": commit,
            "private": repository.private,
            "tags": [],
            "siblings": [{"rfilename": path} for path in repository.commits[commit]],
        }

    @route("GET", f"{API}/tree/(?P<revision>[^/]+)(/(?P<folder>.*))?")
    def tree(self, repo: str, revision: str, folder: str) -> list[dict]:
        """What is in a folder; all files below it if asked recursively."""
        repository = self._repository(repo)
        prefix = f"{folder}/" if folder else ""
        files = repository.commits[repository.resolve(revision)]
        inside = [path for path in files if path.startswith(prefix)]
        if folder and not inside:
            raise HubError(404, f"{folder} does not exist", "EntryNotFound")
        if "recursive=true" in urlsplit(self.path).query.lower():
            return [entry(files, path) for path in inside]
        names = dict.fromkeys(path[len(prefix) :].split("/")[0] for path in inside)
        return [entry(files, prefix + name) for name in names]

    @route("POST", f"{API}/(?P<kind>tag|branch)/(?P<name>.+)")
    def name_a_commit(self, repo: str, kind: str, name: str) -> dict:
        """Make a tag (of revision `name`) or a branch (called `name`)."""
        repository = self._repository(repo, write=True)
        wanted = self._json()
        if kind == "tag":
            repository.tags[wanted["tag"]] = repository.resolve(name)
        else:
            start = wanted.get("startingPoint") or "main"
            repository.branches[name] = repository.resolve(start)
        return {}

    @route("POST", f"{API}/preupload/(?P<revision>[^/]+)")
    def preupload(self, repo: str, revision: str) -> dict:
        """Say which files are to be uploaded by LFS before the commit."""
        self._repository(repo, write=True).resolve(revision)
        paths = [file["path"] for file in self._json()["files"]]
        modes = {path: "lfs" if path.endswith(LFS_SUFFIXES) else "regular" for path in paths}
        return {
            "files": [
                {"path": path, "uploadMode": mode, "shouldIgnore": False}
                for path, mode in modes.items()
            ]
        }

    @route("POST", f"/{REPO}.git/info/lfs/objects/batch")
    def lfs_batch(self, repo: str) -> dict:
        """Say where to upload LFS files to; nowhere for those that are here already."""
        self._repository(repo, write=True)
        objects = []
        for wanted in self._json()["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.uploads:
                href = f"{self.hub.url}/lfs/{wanted['oid']}"
                answer["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    @route("PUT", "/lfs/(?P<sha256>[0-9a-f]{64})")
    def lfs_upload(self, sha256: str) -> dict:
        if hashlib.sha256(self.body).hexdigest() != sha256:
            raise HubError(400, "The upload has another SHA-256 than announced")
        self.hub.uploads[sha256] = self.body
        return {}

    @route("POST", f"{API}/commit/(?P<branch>[^/]+)")
    def commit(self, repo: str, branch: str) -> dict:
        repository = self._repository(repo, write=True)
        if branch not in repository.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        files = dict(repository.commits[repository.branches[branch]])
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile":
                files[value["path"]] = Blob(self.hub.uploads[value["oid"]], lfs=True)
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.add_commit(branch, files)
        url = f"{self.hub.url}/{repo}/commit/{commit}"
        return {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}

    @route("GET", f"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def download(self, repo: str, revision: str, path: str) -> None:
        repository = self._repository(repo)
        commit = repository.resolve(revision)
        blob = repository.commits[commit].get(path)
        if blob is None:
            raise HubError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.sha256 if blob.lfs else blob.oid}"'}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
        self._send(200, blob.data, headers)

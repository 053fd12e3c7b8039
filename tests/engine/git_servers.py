"""Real git servers for tests: smart and dumb http with authentication, redirects and LFS; ssh by a private sshd.

Each is a context manager, listens on one address and a free port, and remembers what it was asked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_HTTP_BACKEND = "/usr/lib/git-core/git-http-backend"


@dataclass(frozen=True)
class Asked:
    """One request that a server got, whether it was answered or not."""

    method: str
    path: str
    authorization: str


@dataclass
class GitHttp:
    """An http server for the repositories below ``root``.

    ``/smart/…`` is git's own http-backend, ``/old/…`` the same without protocol 2, ``/dumb/…`` plain files;
    ``/private/…`` is smart and wants one of ``users``; ``/away/HOST:PORT/…`` redirects there, ``/private-away/…``
    does so with those who are known; ``/status/N/…`` answers N. LFS objects are served for every smart
    repository, private ones with authentication.
    """

    root: Path
    address: str
    port: int = 0
    users: dict[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def authorizations(self) -> set[str]:
        """Every ``Authorization`` header that arrived, Basic ones decoded."""
        return {_decoded(asked.authorization) for asked in self.asked if asked.authorization}


def _decoded(header: str) -> str:
    scheme, _, value = header.partition(" ")
    return base64.b64decode(value).decode(errors="replace") if scheme == "Basic" else header


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    git: GitHttp

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self._body()
        path, _, query = self.path.partition("?")
        authorization = self.headers.get("Authorization", "")
        self.git.asked.append(Asked(self.command, self.path, authorization))
        _, mode, *rest = path.split("/")
        inner = "/".join(rest)
        if mode.startswith("private") and not self._is_known(authorization):
            self._send(401, b"", {"WWW-Authenticate": 'Basic realm="git"'})
        elif mode in ("away", "private-away"):
            self._send(302, b"", {"Location": f"http://{inner}{'?' if query else ''}{query}"})
        elif mode == "status":
            self._send(int(rest[0]), b"")
        elif inner.endswith("/info/lfs/objects/batch"):
            self._lfs_batch(body)
        elif mode == "lfs-objects":
            content = self.git.objects.get(rest[0])
            self._send(404 if content is None else 200, content or b"")
        elif mode == "dumb":
            file = self.git.root / inner
            self._send(200, file.read_bytes()) if file.is_file() else self._send(404, b"")
        elif mode in ("smart", "old", "private"):
            self._backend(f"/{inner}", query, body, old=mode == "old")
        else:
            self._send(404, b"")

    def _is_known(self, authorization: str) -> bool:
        user, _, password = _decoded(authorization).partition(":")
        return password != "" and self.git.users.get(user) == password

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _lfs_batch(self, body: bytes) -> None:
        wanted = [item["oid"] for item in json.loads(body)["objects"]]
        objects = [
            {
                "oid": oid,
                "size": len(self.git.objects[oid]),
                "actions": {"download": {"href": f"{self.git.url}/lfs-objects/{oid}"}},
            }
            if oid in self.git.objects
            else {"oid": oid, "error": {"code": 404, "message": "Object does not exist"}}
            for oid in wanted
        ]
        answer = json.dumps({"transfer": "basic", "objects": objects}).encode()
        self._send(200, answer, {"Content-Type": "application/vnd.git-lfs+json"})

    def _backend(self, path: str, query: str, body: bytes, *, old: bool) -> None:
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.git.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": self.client_address[0],
        }
        if not old:
            env["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        output = subprocess.run([_HTTP_BACKEND], input=body, env=env, check=False, capture_output=True).stdout
        head, _, content = output.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        self._send(status, content, headers)


@contextmanager
def git_http(root: Path, address: str, users: Mapping[str, str] | None = None) -> Iterator[GitHttp]:
    """Serve the repositories below ``root`` by http while the block runs; ``users`` map names to passwords."""
    git = GitHttp(root, address, users=dict(users or {}))
    handler = type("Handler", (_Handler,), {"git": git})
    server = ThreadingHTTPServer((address, 0), handler)
    git.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield git
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class GitSsh:
    """An sshd that lets in who has ``key``, and runs git's upload-pack and the LFS authentication, nothing else."""

    root: Path
    address: str
    port: int
    key: str = field(repr=False)
    known_hosts: str
    log: Path

    def url(self, path: str) -> str:
        return f"ssh://root@{self.address}:{self.port}{path}"


_FORCED = """\
import json, os, shlex, sys
root, lfs = sys.argv[1:]
program, *arguments = shlex.split(os.environ["SSH_ORIGINAL_COMMAND"])
path = os.path.join(root, arguments[0].lstrip("/")) if arguments else root
if program == "git-upload-pack":
    config = ["-c", "safe.directory=*"]
    os.execvp("git", ["git", *config, "upload-pack", path])
if program == "git-lfs-authenticate" and lfs:
    print(json.dumps({"href": lfs + "/" + arguments[0].lstrip("/") + "/info/lfs"}))
    sys.exit(0)
sys.exit("command not found: " + program)
"""


@contextmanager
def git_ssh(
    root: Path, address: str, directory: Path, *, key_type: str = "ed25519", old: bool = False, lfs_url: str = ""
) -> Iterator[GitSsh]:
    """Serve ``root`` by ssh; keys and logs are made in ``directory``. ``old``: without protocol 2."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    assert sshd, "openssh-server is not installed: run deployments/setup/test-tools.sh"
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    for name, kind in (("host", "ed25519"), ("user", key_type)):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(directory / name)], check=True
        )
    (directory / "forced.py").write_text(_FORCED)
    forced = shlex.join([sys.executable, "-I", "-S", str(directory / "forced.py"), str(root), lfs_url])
    port, log = _free_port(address), directory / "sshd.log"
    config = f"""
        ListenAddress {address}:{port}
        HostKey {directory / "host"}
        AuthorizedKeysFile {directory / "user.pub"}
        ForceCommand {forced}
        PidFile none
        StrictModes no
        UsePAM no
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        PermitRootLogin prohibit-password
        PermitTTY no
        {"" if old else "AcceptEnv GIT_PROTOCOL"}
        LogLevel VERBOSE
    """
    (directory / "sshd_config").write_text("\n".join(line.strip() for line in config.splitlines()) + "\n")
    # sshd wants its directory for privilege separation, which the service would make.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen(
        [sshd, "-D", "-E", str(log), "-f", str(directory / "sshd_config")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _await_port(address, port, process, log)
        host_key = " ".join((directory / "host.pub").read_text().split()[:2])
        known_hosts = f"[{address}]:{port} {host_key}\n"
        yield GitSsh(root, address, port, (directory / "user").read_text(), known_hosts, log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _await_port(address: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex((address, port)) == 0:
                return
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError(f"sshd does not listen: {log.read_text()}")


def lfs_pointer(http: GitHttp, content: bytes) -> str:
    """Put an object into the LFS server; returns the pointer file that stands for it in the repository."""
    oid = hashlib.sha256(content).hexdigest()
    http.objects[oid] = content
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"

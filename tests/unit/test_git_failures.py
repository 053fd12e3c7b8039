# ruff: noqa: E501  (messages stay whole, as they were said)
"""What git, ssh and git-lfs say when they fail, and what that means."""

from __future__ import annotations

import pytest

from caisson.errors import (
    BuildFailed,
    CaissonError,
    ContextInvalid,
    DockerfileInvalid,
    EngineRefused,
    LfsFailed,
    RefNotFound,
    RepositoryDenied,
    RepositoryUnreachable,
    RequestInvalid,
    SubmoduleDenied,
    WorkspaceFull,
)
from caisson.git_failures import (
    classify_context_failure,
    classify_git_failure,
    is_certainly_absent,
    is_refusal_of_one_commit,
)

URL = "https://git.example.com/team/app.git"
SSH_END = """\
fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists.
"""

CASES = [
    # step, stderr, failure, what the sentence says
    ("resolve", "fatal: could not read Username for 'https://git.example.com': terminal prompts disabled", RepositoryDenied, "name a secret"),
    ("resolve", "error: unable to read askpass response from '/usr/local/libexec/caisson/git-askpass'\nfatal: could not read Username for 'https://git.example.com': terminal prompts disabled", RepositoryDenied, "could not read Username"),
    ("resolve", "remote: Invalid username or password.\nfatal: Authentication failed for 'https://git.example.com/team/app.git/'", RepositoryDenied, "Authentication failed"),
    ("resolve", "remote: Repository not found.\nfatal: repository 'https://git.example.com/team/app.git/' not found", RepositoryDenied, "not found"),
    ("resolve", "fatal: unable to access 'https://git.example.com/': The requested URL returned error: 403", RepositoryDenied, "403"),
    ("resolve", "git@git.example.com: Permission denied (publickey).\r\n" + SSH_END, RepositoryDenied, "Permission denied (publickey)"),
    ("resolve", "ERROR: Repository not found.\n" + SSH_END, RepositoryDenied, "Repository not found"),
    ("resolve", "remote: ERROR: The project you were looking for could not be found or you don't have permission to view it.\n" + SSH_END, RepositoryDenied, "could not be found"),
    ("resolve", "fatal: '/team/app.git' does not appear to be a git repository\n" + SSH_END, RepositoryDenied, "does not appear"),
    ("resolve", "fatal: remote error: access denied or repository not exported: /x", RepositoryDenied, "not exported"),
    ("resolve", "fatal: https://git.example.com/team/app.git/info/refs not valid: is this a git repository?", RepositoryDenied, "not valid"),
    ("resolve", "No ED25519 host key is known for git.example.com and you have requested strict checking.\r\nHost key verification failed.\r\n" + SSH_END, RepositoryDenied, "host key"),
    ("resolve", "fatal: transport 'http' not allowed", RepositoryDenied, "protocol that is not allowed"),
    ("resolve", "fatal: unable to access 'https://git.example.com/': Could not resolve host: git.example.com", RepositoryUnreachable, "Could not resolve host"),
    ("resolve", "fatal: unable to access 'https://git.example.com/': Failed to connect to git.example.com port 443 after 2 ms: Could not connect to server", RepositoryUnreachable, "Failed to connect"),
    ("resolve", "fatal: unable to access 'https://git.example.com/': The requested URL returned error: 502", RepositoryUnreachable, "502"),
    ("resolve", "fatal: unable to access 'https://git.example.com/': SSL certificate problem: self-signed certificate", RepositoryUnreachable, "certificate"),
    ("resolve", "fatal: unable to access 'https://git.example.com/': server certificate verification failed. CAfile: none CRLfile: none", RepositoryUnreachable, "certificate"),
    ("resolve", "fatal: unable to look up git.example.com (port 9418) (Name or service not known)", RepositoryUnreachable, "unable to look up"),
    ("resolve", "fatal: unable to connect to git.example.com:\ngit.example.com[0: 192.0.2.1]: errno=Connection refused", RepositoryUnreachable, "unable to connect"),
    ("resolve", "ssh: connect to host git.example.com port 22: Connection refused\r\n" + SSH_END, RepositoryUnreachable, "Connection refused"),
    ("resolve", "ssh: Could not resolve hostname git.example.com: Name or service not known\r\n" + SSH_END, RepositoryUnreachable, "Could not resolve hostname"),
    ("fetch", "error: RPC failed; curl 18 transfer closed with outstanding read data remaining\nfatal: early EOF\nfatal: fetch-pack: invalid index-pack output", RepositoryUnreachable, "RPC failed"),
    ("fetch", "fatal: the remote end hung up unexpectedly", RepositoryUnreachable, "hung up"),
    ("fetch", "fatal: something that nobody has seen", RepositoryUnreachable, "something that nobody has seen"),
    ("fetch", "", RepositoryUnreachable, "it said nothing"),
    ("fetch", "fatal: remote error: upload-pack: not our ref 0123456789", RefNotFound, "not our ref"),
    ("fetch", "error: Server does not allow request for unadvertised object 0123456789", RefNotFound, "unadvertised"),
    ("fetch", "fatal: couldn't find remote ref refs/pull/7/head", RefNotFound, "couldn't find remote ref"),
    ("checkout", "fatal: unable to read tree (0123456789)", RefNotFound, "unable to read tree"),
    ("commit", "fatal: Needed a single revision", RefNotFound, "Needed a single revision"),
    ("fetch", "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output", WorkspaceFull, "limits.workspace"),
    ("checkout", "error: unable to write file big: No space left on device\nfatal: cannot create directory", WorkspaceFull, "does not fit"),
    ("submodules", "fatal: write error: No space left on device", WorkspaceFull, "does not fit"),
    ("fetch", "error: object 0123456789012345678901234567890123456789: gitmodulesUrl: disallowed submodule url: -u./x\nfatal: fsck error in packed object", SubmoduleDenied, "does not trust"),
    ("fetch", "error: object 0123456789012345678901234567890123456789: hasDotgit: contains '.git'\nfatal: fsck error in packed object", RepositoryDenied, "hasDotgit"),
    ("checkout", "Error downloading object: big.bin (9d44577): Smudge error: Error downloading big.bin: [404] Object does not exist\nerror: external filter 'git-lfs filter-process' failed\nfatal: big.bin: smudge filter lfs failed", LfsFailed, "Object does not exist"),
    ("checkout", "batch response: Repository or object not found: https://x/info/lfs/objects/batch\nfatal: big.bin: smudge filter lfs failed", LfsFailed, "batch response"),
    ("submodules", "fatal: transport 'file' not allowed\nfatal: clone of 'file:///x' into submodule path '/app/lib/a' failed\nFailed to clone 'lib/a'. Retry scheduled", SubmoduleDenied, "'lib/a' uses the protocol 'file'"),
    ("submodules", "fatal: could not read Username for 'https://other': terminal prompts disabled\nfatal: clone of 'https://other/x' into submodule path '/app/lib' failed", SubmoduleDenied, "'lib' could not be had: could not read Username"),
    ("submodules", "fatal: No url found for submodule path 'lib' in .gitmodules", SubmoduleDenied, "No url found"),
    ("credentials", "Error loading key \"(stdin)\": error in libcrypto\nfatal: the SSH key can't be read", RequestInvalid, "git_credentials"),
    ("init", "fatal: cannot mkdir /app: Read-only file system", EngineRefused, "Read-only file system"),
    ("", "", EngineRefused, "exit code 128"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "stderr", "failure", "says"), CASES)
def test_what_git_says_is_understood(step: str, stderr: str, failure: type[CaissonError], says: str) -> None:
    error = classify_git_failure(step, 128, stderr, url=URL)
    assert type(error) is failure
    assert says in str(error)
    assert "\n" not in str(error)
    assert str(error).count("..") == 0


def test_with_credentials_the_way_out_is_to_check_them() -> None:
    error = classify_git_failure("resolve", 128, "fatal: Authentication failed for 'x'", url=URL, has_credentials=True)
    assert error.hint == "Check the credentials in git_credentials, and what they may read."


def test_whether_git_ran_out_of_memory_is_not_guessed() -> None:
    killed = classify_git_failure("fetch", 137, "", url=URL)
    assert (type(killed), killed.message) == (BuildFailed, "git ended early in the builder: it was killed.")
    assert type(classify_git_failure("fetch", 128, "fatal: Out of memory, malloc failed", url=URL)) is BuildFailed


@pytest.mark.parametrize(
    "said", ["remote: fatal: Out of memory, malloc failed", "remote: fatal: write error: No space left on device"]
)
def test_what_the_server_has_run_out_of_is_not_the_builders(said: str) -> None:
    assert type(classify_git_failure("fetch", 128, f"{said}\nfatal: early EOF", url=URL)) is RepositoryUnreachable


@pytest.mark.parametrize("name", ["openssl", "mbedtls", "gnutls", "certificate problem", "RPC failed", "HTTP 503"])
@pytest.mark.parametrize(
    "said",
    [
        "fatal: repository 'https://git.example.com/team/{}/' not found",
        "fatal: unable to access 'https://git.example.com/team/{}/': The requested URL returned error: 403",
        "fatal: could not read Username for 'https://{}.example.com': terminal prompts disabled",
        "fatal: '/team/{}' does not appear to be a git repository\n" + SSH_END,
    ],
)
def test_a_name_decides_nothing(said: str, name: str) -> None:
    assert type(classify_git_failure("resolve", 128, said.format(name), url=URL)) is RepositoryDenied


@pytest.mark.parametrize(
    "said",
    [
        "SSL: no alternative certificate subject name matches target host name 'git.example.com'",
        "OpenSSL SSL_connect: Connection was aborted in connection to git.example.com:443",
        "gnutls_handshake() failed: The TLS connection was non-properly terminated.",
        "GnuTLS recv error (-54): Error in the pull function.",
        "TLS connect error: error:0A00010B:SSL routines::wrong version number",
        "error adding trust anchors from file: /etc/ssl/x",
    ],
)
def test_tls_that_fails_is_a_repository_out_of_reach(said: str) -> None:
    said = f"fatal: unable to access 'https://git.example.com/team/app.git/': {said}"
    assert type(classify_git_failure("resolve", 128, said, url=URL)) is RepositoryUnreachable


def test_the_end_of_what_git_said_is_kept_without_control_characters() -> None:
    said = "remote: \x1b[31mred\x1b[0m\r\nremote: x\x07y\nfatal: Authentication failed"
    error = classify_git_failure("resolve", 128, said, url=URL)
    assert error.details["last_lines"] == ["remote: red", "remote: x\ufffdy", "fatal: Authentication failed"]


@pytest.mark.parametrize(
    ("step", "stderr", "whole", "absent"),
    [
        ("fetch", "fatal: remote error: upload-pack: not our ref 01", True, True),
        ("fetch", "error: Server does not allow request for unadvertised object 01", True, False),
        ("fetch", "fatal: dumb http transport does not support shallow capabilities", True, False),
        ("submodules", "fatal: Fetched in submodule path 'lib', but it did not contain 01. Direct fetching of that commit failed.", True, False),
        ("fetch", "fatal: Authentication failed", False, False),
        ("checkout", "fatal: remote error: upload-pack: not our ref 01", False, True),
    ],
)  # fmt: skip
def test_a_server_that_gives_no_single_commit_is_asked_for_all(
    step: str, stderr: str, whole: bool, absent: bool
) -> None:
    assert is_refusal_of_one_commit(step, stderr) is whole
    assert is_certainly_absent(stderr) is absent


@pytest.mark.parametrize(
    ("code", "listed", "context", "dockerfile", "failure", "says"),
    [
        (61, "", "none", "", ContextInvalid, "'none' is not a directory of the repository. Correct context."),
        (61, "a/Dockerfile\n", "none", "", ContextInvalid, "There is a/Dockerfile"),
        (62, "", "out", "", ContextInvalid, "'out' leads out of the repository by a symlink"),
        (63, "", "", "", DockerfileInvalid, "no Dockerfile 'Dockerfile' in the repository. Add one"),
        (63, "a/b.Dockerfile\na/c/Dockerfile\nDockerfile\n", "a", "x", DockerfileInvalid, "Set dockerfile to b.Dockerfile or c/Dockerfile"),
        (63, "b/Dockerfile\n", "a", "", DockerfileInvalid, "There is b/Dockerfile; set context and dockerfile to it"),
        (64, "", "", "x", DockerfileInvalid, "'x' leads out of the repository by a symlink"),
        (65, "", "", "", ContextInvalid, ".dockerignore leads out"),
        (2, "", "", "", EngineRefused, "exit code 2"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_context_is_told_with_what_there_is(
    code: int, listed: str, context: str, dockerfile: str, failure: type[CaissonError], says: str
) -> None:
    error = classify_context_failure(code, listed, context=context, dockerfile=dockerfile)
    assert type(error) is failure
    assert says in str(error)


def test_what_follows_a_colon_belongs_to_the_sentence() -> None:
    said = "fatal: unable to connect to h.example:\nh.example[0: 192.0.2.1]: errno=Connection refused\n\n"
    failure = classify_git_failure("resolve", 128, said, url="git://h.example/a")
    assert failure.message == (
        "git://h.example/a can't be reached: "
        "unable to connect to h.example: h.example[0: 192.0.2.1]: errno=Connection refused."
    )

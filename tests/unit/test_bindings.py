"""Where a credential may be sent: to what the host's settings bind it to, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from caisson.bindings import HostBinding, git_credential_problem, is_git_credential, registry_auth, secret_variable
from caisson.engine import EngineInfo, RegistryAuth
from caisson.errors import SettingsInvalid
from caisson.git import parse_repository_url

PROTOCOLS = ("https", "http", "ssh", "git")
ENGINE = EngineInfo(
    version="26.1.5",
    api_version="1.45",
    storage_driver="overlay2",
    cgroup_driver="systemd",
    cgroup_version=2,
    data_root="/var/lib/docker",
    security_options=(),
    cpus=2,
    memory=1 << 30,
    containerd_store=False,
    insecure_registries=("plain.example.com:5000", "127.0.0.0/8", "10.9.0.0/16", "::1/128"),
)


@pytest.mark.parametrize(
    ("bound", "url", "allowed"),
    [
        ("git.example.com", "https://git.example.com/app", True),
        ("git.example.com", "https://GIT.example.com:443/app", True),
        ("git.example.com", "git@git.example.com:app", True),
        ("git.example.com", "ssh://git@git.example.com:22/app", True),
        ("git.example.com", "http://git.example.com/app", False),
        ("git.example.com", "https://git.example.com:8443/app", False),
        ("git.example.com", "https://git.example.com./app", False),
        ("git.example.com", "https://evil.git.example.com/app", False),
        ("git.example.com", "https://git.example.com.evil.test/app", False),
        ("git.example.com", "https://evil.test/git.example.com", False),
        ("Git.Example.com:8443", "https://git.example.com:8443/app", True),
        ("git.example.com:8443", "https://git.example.com/app", False),
        ("https://git.example.com", "git@git.example.com:app", False),
        ("ssh://git.example.com:2222", "ssh://git@git.example.com:2222/app", True),
        ("ssh://git.example.com:2222", "git@git.example.com:app", False),
        ("http://git.example.com", "http://git.example.com:80/app", True),
        ("http://git.example.com", "https://git.example.com/app", False),
        ("http://git.example.com:3000", "http://git.example.com:3000/app", True),
        ("[2001:db8::1]:3000", "https://[2001:DB8::1]:3000/app", True),
    ],
)
def test_a_credential_goes_to_the_bound_host_protocol_and_port_only(bound: str, url: str, allowed: bool) -> None:
    parsed = parse_repository_url(url, PROTOCOLS)
    assert HostBinding.parse(bound).allows(parsed) is allowed
    assert (git_credential_problem("key", parsed, {"key": [bound]}) == "") is allowed
    assert git_credential_problem("other", parsed, {"key": [bound]}) != ""


@pytest.mark.parametrize(
    ("url", "bindings", "sentence"),
    [
        (
            "https://git.example.com/app",
            {},
            "the secret 'key' is bound to no host, so not to https://git.example.com; to send it there the host's "
            'setting CAISSON_CREDENTIAL_HOSTS must hold {"key": ["https://git.example.com"]}',
        ),
        (
            "git@evil.test:app",
            {"key": ["git.example.com"]},
            "the secret 'key' may be sent to git.example.com only, so not to ssh://evil.test; to send it there the "
            'host\'s setting CAISSON_CREDENTIAL_HOSTS must hold {"key": ["git.example.com", "ssh://evil.test"]}',
        ),
        (
            "http://git.example.com:3000/app",
            {"key": ["git.example.com"]},
            "the secret 'key' may be sent to git.example.com only, so not to http://git.example.com:3000; to send it "
            "there, without TLS, the host's setting CAISSON_CREDENTIAL_HOSTS must hold "
            '{"key": ["git.example.com", "http://git.example.com:3000"]}',
        ),
        (
            "git://git.example.com/app",
            {"key": ["git.example.com"]},
            "the git protocol knows no credentials; use an https or ssh URL",
        ),
    ],
)
def test_the_refusal_shows_what_to_write(url: str, bindings: dict[str, list[str]], sentence: str) -> None:
    assert git_credential_problem("key", parse_repository_url(url, PROTOCOLS), bindings) == sentence


@pytest.mark.parametrize("url", ["https://git.example.com/a", "git@git.example.com:a", "http://git.example.com:81/a"])
def test_what_the_refusal_says_to_write_is_enough(url: str) -> None:
    parsed = parse_repository_url(url, PROTOCOLS)
    assert git_credential_problem("key", parsed, {"key": [parsed.origin()]}) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "git://host",
        "ftp://host",
        "*.example.com",
        "user@host",
        "host/path",
        "https://host/",
        "host:0",
        "host:99999",
    ],
)
def test_what_is_no_binding_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\[scheme://\]host\[:port\]|port"):
        HostBinding.parse(text)


@pytest.mark.parametrize("name", ["deploy-key", "DEPLOY-KEY", "deploy_key", "Deploy.Key"])
def test_every_spelling_that_reads_the_same_variable_is_the_same_credential(name: str) -> None:
    assert secret_variable(name) == secret_variable("deploy-key")
    assert is_git_credential(name, {"deploy-key": ["git.example.com"]})
    assert not is_git_credential("npm", {"deploy-key": ["git.example.com"]})


def _auth(registry: str, bound_to: str, addresses: tuple[str, ...] = (), engine: EngineInfo = ENGINE) -> object:
    return registry_auth(
        registry, bound_to=bound_to, username="me", password="s3cr3t", engine=engine, addresses=addresses
    )


@pytest.mark.parametrize(
    ("registry", "bound_to", "gets_it"),
    [
        ("registry.example.com:5000", "registry.example.com:5000", True),
        ("Registry.example.com:5000", "registry.example.com:5000", True),
        ("docker.io", "index.docker.io", True),
        ("registry.example.com", "registry.example.com:5000", False),
        ("evil.test", "registry.example.com", False),
        ("docker.io", "registry.example.com", False),
        ("127.0.0.1:5000", "http://127.0.0.1:5000", True),
        ("plain.example.com:5000", "http://plain.example.com:5000", True),
    ],
)
def test_a_registry_gets_the_credential_that_is_bound_to_it(registry: str, bound_to: str, gets_it: bool) -> None:
    assert _auth(registry, bound_to) == (RegistryAuth("me", "s3cr3t", registry) if gets_it else None)


@pytest.mark.parametrize(
    ("registry", "addresses"),
    [
        ("127.0.0.1:5000", ()),
        ("localhost:5000", ()),
        ("[::1]:5000", ()),
        ("plain.example.com:5000", ()),
        ("inside.example.com", ("10.9.1.2",)),
    ],
)
def test_a_registry_without_tls_gets_no_password_unless_that_is_said(registry: str, addresses: tuple[str, ...]) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        _auth(registry, registry, addresses)
    assert f"Set CAISSON_REGISTRY=http://{registry} " in caught.value.hint
    assert "s3cr3t" not in str(caught.value)
    assert _auth(registry, f"http://{registry}", addresses) == RegistryAuth("me", "s3cr3t", registry)
    assert _auth(registry, registry, addresses, replace(ENGINE, insecure_registries=())) is not None


def test_a_credential_for_no_registry_in_particular_is_sent_to_none() -> None:
    with pytest.raises(SettingsInvalid, match=r"CAISSON_REGISTRY=evil\.test"):
        _auth("evil.test", "")


def test_without_a_credential_a_push_is_anonymous() -> None:
    assert registry_auth("a.test", bound_to="a.test", username="", password="", engine=ENGINE) is None

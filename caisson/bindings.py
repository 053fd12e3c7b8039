"""Where a credential may be sent. Pure.

A request names a git credential and, in the same breath, the server that gets it; so whoever may start a build could
send any secret to a host of their own. What binds the two is the host's settings alone, and a credential that they
bind to nothing goes nowhere. Without TLS anybody on the way can read it (RFC 7617, section 4), so plain http has to be
written out.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from caisson.engine import EngineInfo, RegistryAuth
from caisson.errors import SettingsInvalid
from caisson.git import DEFAULT_PORTS, RepositoryURL
from caisson.reference import DEFAULT_REGISTRY

_BINDING = re.compile(
    r"(?:(?P<scheme>[a-z]+)://)?(?P<host>\[[0-9a-f:]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::(?P<port>[0-9]{1,5}))?"
)
_SCHEMES = ("https", "ssh", "http")
_DOCKER_HUB = frozenset({DEFAULT_REGISTRY, "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True)
class HostBinding:
    """``[scheme://]host[:port]``: without a scheme https and ssh, without a port the scheme's own."""

    host: str
    scheme: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> HostBinding:
        """Raises ``ValueError`` for anything else: no path, no user, no wildcard.

        >>> HostBinding.parse("ssh://git.example.com:2222")
        HostBinding(host='git.example.com', scheme='ssh', port=2222)
        """
        match = _BINDING.fullmatch(text.lower())
        if match is None or (match["scheme"] or "https") not in _SCHEMES:
            raise ValueError(
                f"{text[:80]!r} is not [scheme://]host[:port] with https, ssh or http, such as git.example.com"
            )
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 0 < port < 65536:
            raise ValueError(f"{text[:80]!r} has the port {port}; give one from 1 to 65535")
        return cls(match["host"], match["scheme"] or "", port)

    def allows(self, url: RepositoryURL) -> bool:
        """Whether a credential with this binding may be sent to the URL's server.

        >>> from caisson.git import parse_repository_url
        >>> url = parse_repository_url("http://git.example.com/app", ["http"])
        >>> HostBinding.parse("git.example.com").allows(url), HostBinding.parse("http://git.example.com").allows(url)
        (False, True)
        """
        schemes = (self.scheme,) if self.scheme else ("https", "ssh")
        default = DEFAULT_PORTS.get(url.scheme)
        same_port = (self.port or default) == (url.port or default)
        return url.scheme in schemes and url.host.lower() == self.host and same_port


def secret_variable(name: str) -> str:
    """The variable of a secret on the host; only this prefix, so that no request reaches the rest of the environment.

    >>> secret_variable("npm-token")
    'CAISSON_SECRET_NPM_TOKEN'
    """
    return f"CAISSON_SECRET_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"


def git_credential_problem(name: str, url: RepositoryURL, bindings: Mapping[str, Sequence[str]]) -> str:
    """Why the credential of that name may not be sent to the URL's server, and what to set; empty: it may be.

    ``bindings`` is the setting ``credential_hosts``.
    """
    if url.scheme == "git":
        return "the git protocol knows no credentials; use an https or ssh URL"
    bound = tuple(bindings.get(name, ()))
    if any(HostBinding.parse(text).allows(url) for text in bound):
        return ""
    where = f"may be sent to {' and '.join(bound)} only" if bound else "is bound to no host"
    plain = ", without TLS," if url.scheme == "http" else ""
    wanted = json.dumps({name: [*bound, url.origin()]})
    return (
        f"the secret {name!r} {where}, so not to {url.origin()}; to send it there{plain} the host's setting "
        f"CAISSON_CREDENTIAL_HOSTS must hold {wanted}"
    )


def is_git_credential(secret: str, bindings: Mapping[str, Sequence[str]]) -> bool:
    """Whether a secret's name means one that is bound, by whichever spelling: some spellings share a variable.

    >>> is_git_credential("Deploy_Key", {"deploy-key": ["git.example.com"]})
    True
    """
    return secret_variable(secret) in map(secret_variable, bindings)


def registry_auth(
    registry: str,
    *,
    bound_to: str,
    username: str,
    password: str,
    engine: EngineInfo,
    addresses: Iterable[str] = (),
) -> RegistryAuth | None:
    """The credential for a push to ``registry``; None where there is none for it, and the push is anonymous.

    ``bound_to`` is the setting ``registry``; ``addresses`` are those of the registry's name. Raises ``SettingsInvalid``
    for a credential that is bound to nothing, and for one that would go to a registry without TLS unasked.
    """
    if not (username or password):
        return None
    if not bound_to:
        raise SettingsInvalid(
            "registry: CAISSON_REGISTRY_USERNAME is set, and not the registry that it is for.",
            hint=f"Set CAISSON_REGISTRY={registry}, or to another to push to {registry} without credentials.",
        )
    plain = bound_to.lower().startswith("http://")
    if _registry_name(bound_to) != _registry_name(registry):
        return None
    if not plain and _is_insecure(registry, engine, addresses):
        raise SettingsInvalid(
            f"registry: the engine reaches {registry} without TLS if it has to, and a password would be readable.",
            hint=f"Set CAISSON_REGISTRY=http://{registry} to send it all the same, or give the registry a certificate "
            "and take it off the engine's insecure-registries.",
        )
    return RegistryAuth(username, password, registry)


def _registry_name(text: str) -> str:
    name = text.lower().removeprefix("http://")
    return DEFAULT_REGISTRY if name in _DOCKER_HUB else name


def registry_host(registry: str) -> str:
    """The host of ``host[:port]``.

    >>> registry_host("[::1]:5000"), registry_host("localhost:5000"), registry_host("docker.io")
    ('::1', 'localhost', 'docker.io')
    """
    if registry.startswith("["):
        return registry[1:].partition("]")[0]
    return registry.partition(":")[0]


def _is_insecure(registry: str, engine: EngineInfo, addresses: Iterable[str]) -> bool:
    """The engine's own rule (registry/config.go, isSecureIndex): by name, else by the network of any address."""
    if registry in engine.insecure_registries:
        return True
    networks = [
        ipaddress.ip_network(text, strict=False)
        for text in engine.insecure_registries
        if re.fullmatch(r"[0-9A-Fa-f.:]+/[0-9]+", text)
    ]
    host = registry_host(registry)
    found = {*addresses, *(("127.0.0.1", "::1") if host == "localhost" else ())}
    if re.fullmatch(r"[0-9.]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", host):
        found.add(host)
    return any(ipaddress.ip_address(address) in network for address in found for network in networks)

"""What can go wrong, as types: one kind, one exit code and one way out each.

A ``CaissonError`` carries a sentence for people (``str(error)``), a ``kind`` for machines, an exit code for
shells, and details for the report. No message ever holds a secret.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CaissonError(Exception):
    """Base of every failure that a user can act on.

    ``hint`` is the way out; ``details`` are JSON-able facts (step, exit code, last lines, bytes missing).
    ``retryable`` says whether the same request can succeed when it is tried again unchanged.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = details or {}

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.details))

    def to_dict(self) -> dict[str, Any]:
        """The failure as ``--json`` prints it."""
        return {
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
            "details": self.details,
        }


def _rebuild(cls: type[CaissonError], message: str, hint: str, details: dict[str, Any]) -> CaissonError:
    return cls(message, hint=hint, details=details)


class RequestInvalid(CaissonError):
    """The request breaks a rule; ``details["fields"]`` lists ``{"field", "message"}`` one by one."""

    kind = "request-invalid"
    exit_code = 10

    @classmethod
    def from_fields(cls, problems: list[tuple[str, str]]) -> RequestInvalid:
        sentence = "; ".join(f"{field}: {message}" for field, message in problems)
        return cls(
            f"The build request is invalid: {sentence}.",
            details={"fields": [{"field": field, "message": message} for field, message in problems]},
        )


class SettingsInvalid(CaissonError):
    kind = "settings-invalid"
    exit_code = 11


class MountRefused(CaissonError):
    kind = "mount-refused"
    exit_code = 12


class DiskTooFull(CaissonError):
    kind = "disk-too-full"
    exit_code = 13


class LimitsNotEnforceable(CaissonError):
    """``require_limits`` is set and the engine can't hold the RUN steps to the builder's limits."""

    kind = "limits-not-enforceable"
    exit_code = 14


class SecretMissing(CaissonError):
    kind = "secret-missing"
    exit_code = 15


class LedgerUnusable(CaissonError):
    """The ledger can't be read or written, or a newer Caisson wrote it."""

    kind = "ledger-unusable"
    exit_code = 16


class StoreUnusable(CaissonError):
    """The service's own data (tokens) can't be read or written, or a newer Caisson wrote it."""

    kind = "store-unusable"
    exit_code = 19


class EngineUnreachable(CaissonError):
    kind = "engine-unreachable"
    exit_code = 20
    retryable = True


class EngineLost(CaissonError):
    """The engine went away while the build ran."""

    kind = "engine-lost"
    exit_code = 21
    retryable = True


class EngineRefused(CaissonError):
    """The engine answered a call with an error that has no kind of its own."""

    kind = "engine-refused"
    exit_code = 22


class EngineFault(CaissonError):
    """The engine failed at what it does every day, such as starting the process of a step."""

    kind = "engine-fault"
    exit_code = 26
    retryable = True


class RemovalRefused(EngineRefused):
    """The engine would remove something by force only: it is in use, others stand on it, or it has several names."""

    kind = "removal-refused"
    exit_code = 24


class PruneBusy(CaissonError):
    """Another prune of this host is under way."""

    kind = "prune-busy"
    exit_code = 17
    retryable = True


class ImageUnknown(CaissonError):
    """No image on this host has such a name or ID, or several have."""

    kind = "image-unknown"
    exit_code = 18


class PruneStopped(CaissonError):
    """A prune ended early by something that went wrong; what it had removed by then is in its report."""

    kind = "prune-stopped"
    exit_code = 25
    retryable = True


class BuilderImageMissing(CaissonError):
    kind = "builder-image-missing"
    exit_code = 23


class RepositoryDenied(CaissonError):
    """Not found, or not allowed: git servers answer the same for both."""

    kind = "repository-denied"
    exit_code = 30


class RepositoryUnreachable(CaissonError):
    kind = "repository-unreachable"
    exit_code = 31
    retryable = True


class RefNotFound(CaissonError):
    kind = "ref-not-found"
    exit_code = 32


class SubmoduleDenied(CaissonError):
    kind = "submodule-denied"
    exit_code = 33


class LfsFailed(CaissonError):
    kind = "lfs-failed"
    exit_code = 34


class WorkspaceFull(CaissonError):
    kind = "workspace-full"
    exit_code = 35


class ContextInvalid(CaissonError):
    """The context directory is missing or leads out of the workspace."""

    kind = "context-invalid"
    exit_code = 36


class DockerfileInvalid(CaissonError):
    kind = "dockerfile-invalid"
    exit_code = 37


class DockerfileDenied(CaissonError):
    """The Dockerfile asks for what this host does not allow; ``details["findings"]`` lists it line by line."""

    kind = "dockerfile-denied"
    exit_code = 38


class BuildStepFailed(CaissonError):
    """A Dockerfile step failed; ``details``: ``step``, ``exit_code``, ``last_lines``."""

    kind = "build-step-failed"
    exit_code = 40


class OutOfMemory(CaissonError):
    kind = "out-of-memory"
    exit_code = 41


class PidsExhausted(CaissonError):
    kind = "pids-exhausted"
    exit_code = 42


class BuildTimedOut(CaissonError):
    kind = "timed-out"
    exit_code = 43


class BuildCancelled(CaissonError):
    kind = "cancelled"
    exit_code = 44


class BuildFailed(CaissonError):
    """The build failed outside any Dockerfile step (the frontend, a base image, the builder itself)."""

    kind = "build-failed"
    exit_code = 45


class BaseImageUnreachable(CaissonError):
    """A base image's registry could not be reached, or had a fault of its own."""

    kind = "base-image-unreachable"
    exit_code = 47
    retryable = True


class GuardDenied(CaissonError):
    """The guard denied what the build asked of the engine; ``details``: ``rule``, ``audit_file``."""

    kind = "guard-denied"
    exit_code = 46


class PushDenied(CaissonError):
    kind = "push-denied"
    exit_code = 50


class RegistryUnreachable(CaissonError):
    kind = "registry-unreachable"
    exit_code = 51
    retryable = True


class ServiceUnreachable(CaissonError):
    """No Caisson (Prefect API) answers where the settings say."""

    kind = "service-unreachable"
    exit_code = 60
    retryable = True


def all_failures() -> tuple[type[CaissonError], ...]:
    """The class of every failure, in the order in which they stand here."""
    return tuple(value for value in globals().values() if isinstance(value, type) and issubclass(value, CaissonError))

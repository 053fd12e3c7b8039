"""``BuildRequest``: what a caller asks for. Untrusted until ``caisson.spec`` has made a ``BuildSpec`` of it.

The model is also the form in the Prefect UI: titles and descriptions are what people read there, as plain text, in the
order of the fields; so what most builds need comes first. Fields that are optional are ``""`` rather than ``None``,
since Prefect's form shows ``Optional`` as a toggle.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# As their issuers document them: GitHub, GitLab, Docker, Slack, Atlassian, AWS, npm, PyPI, Hugging Face, JWT, Caisson.
_ISSUED = (
    r"(?:gh[pousr]_|github_pat_|gl(?:pat|dt|rt|cbt|ptt|ft|oas|soat)-|dckr_[op]at_|xox[a-z]-|AT(?:BB|ATT3|CTT3)"
    r"|AKIA[0-9A-Z]{16}|npm_[A-Za-z0-9]{36}|pypi-Ag|hf_[A-Za-z]{30}|eyJ[A-Za-z0-9_-]{16}|caisson_[0-9a-f]{12}_)"
)
# Of no part of it are there two ways to match: the server holds it against texts of any length.
NO_CREDENTIALS = (
    # A query or a fragment.
    r"^(?![\s\S]*[?#])"
    # user:password@, behind a scheme or without one; a password with a slash in it makes a port that is none.
    r"(?![^/]*://[^/@:]*:[^/@]*@)(?![^/@:]*:[^/@]*@)(?![^/]*://(?:[^/@]*@)?[^/@:\[]*:(?![0-9]*(?:/|$)))"
    # A user of another protocol than ssh, or before what is no host of ssh.
    r"(?!(?![sS][sS][hH]:)[^/]*://[^/]*@)(?![^/:@]*@[^/:]*/)"
    # No login name is so long; and some tokens tell what they are.
    rf"(?!(?:[^/@]*://)?(?:[^/@:]{{33,}}|{_ISSUED}[^/]*)@)"
)
"""For Prefect's server, which keeps parameters as they are: it is not to take a URL that may have a secret in it.
``caisson.git`` refuses what it refuses. A user's name is allowed for ssh."""
SECRET_NAME = rf"^(?!{_ISSUED})[A-Za-z0-9][A-Za-z0-9_.-]{{0,63}}$"
"""For Prefect's server likewise: it is not to take a token where the name of one is asked for."""


class Builder(StrEnum):
    """Which builder of the engine builds the image."""

    AUTO = "auto"
    BUILDKIT = "buildkit"
    CLASSIC = "classic"


class DefaultBranchTag(StrEnum):
    """The extra tag that a build of the remote's default branch gets."""

    AUTO = "auto"
    LATEST = "latest"
    EDGE = "edge"
    NONE = "none"


class TagRules(BaseModel):
    """Which tags the image gets, from the commit and the ref it was built from."""

    model_config = ConfigDict(extra="forbid", title="Tags")

    sha: bool = Field(True, title="Commit", description="sha- and the full commit SHA")
    sha_short: bool = Field(True, title="Short commit", description="sha- and the first 7 characters of the SHA")
    branch: bool = Field(True, title="Branch", description="The branch's name, for a build of a branch")
    pull_request: bool = Field(True, title="Pull request", description="pr-N, for a build of refs/pull/N/head")
    semver: bool = Field(
        True, title="Version", description="1.2.3, 1.2 and 1 for a version tag, and latest for the highest release"
    )
    default_branch: DefaultBranchTag = Field(
        DefaultBranchTag.AUTO,
        title="Default branch",
        description="Extra tag for the default branch; auto: edge where the repository has releases, else latest",
    )
    raw: list[str] = Field(default=[], title="More tags", description="Tags as they are, such as stable", max_length=32)


class LimitsRequest(BaseModel):
    """Limits of the builder and of the RUN steps together; 0 or empty takes the host's default."""

    model_config = ConfigDict(extra="forbid", title="Limits")

    cpus: float = Field(0, title="CPUs", description="Cores, such as 1.5", ge=0, le=1024)
    memory: str = Field("", title="Memory", description="Such as 2g: swap and the workspace included", max_length=32)
    pids: int = Field(0, title="Processes", description="Processes and threads at once", ge=0, le=4_194_304)
    workspace: str = Field(
        "", title="Workspace", description="Size of the clone's file system, such as 1g", max_length=32
    )
    timeout_minutes: float = Field(0, title="Timeout", description="Minutes for the whole build", ge=0, le=7 * 24 * 60)


class BuildRequest(BaseModel):
    """An image to build from a git repository."""

    model_config = ConfigDict(extra="forbid", title="Build request")

    repository_url: str = Field(
        title="Repository",
        description="https, http, ssh or git URL, or user@host:path; never with a password in it",
        max_length=2048,
        examples=["https://github.com/team/app.git"],
        json_schema_extra={"pattern": NO_CREDENTIALS},
    )
    ref: str = Field(
        "",
        title="Ref",
        description="Branch, tag, full or short SHA, or refs/pull/N/head; empty: the remote's default branch",
        max_length=255,
    )
    image: str = Field(
        title="Image",
        description="Repository to tag, registry and port included, without a tag, "
        "such as registry.example.com:5000/team/app",
        max_length=255,
        examples=["registry.example.com:5000/team/app"],
    )
    push: bool = Field(False, title="Push", description="Push every tag to the image's registry")
    git_credentials: str = Field(
        "",
        title="Git credentials",
        description="Name of the secret that holds a token or an SSH key, for a private repository",
        max_length=128,
        json_schema_extra={"pattern": rf"^$|{SECRET_NAME}"},
    )
    commit: str = Field(
        "",
        title="Commit",
        description="Full SHA to build, whatever the ref means by then; the ref still gives the tags",
        max_length=64,
    )
    context: str = Field("", title="Context", description="Subdirectory of the repository to build in", max_length=1024)
    dockerfile: str = Field(
        "", title="Dockerfile", description="Path below the context; empty: Dockerfile", max_length=1024
    )
    target: str = Field(
        "", title="Target stage", description="Stage of the Dockerfile to build; empty: the last one", max_length=128
    )
    build_args: dict[str, str] = Field(
        default={},
        title="Build arguments",
        description='Such as {"VERSION": "1.2"}; not for secrets: they stay in the history of the image',
    )
    secrets: list[Annotated[str, Field(json_schema_extra={"pattern": SECRET_NAME})]] = Field(
        default=[],
        title="Secrets",
        description="Names of secrets for RUN --mount=type=secret,id=NAME; their values come from Prefect Secret "
        "blocks or from CAISSON_SECRET_NAME on the host",
        max_length=64,
    )
    no_cache: bool = Field(
        False,
        title="No cache",
        description="Build every step anew, though an image of the same commit exists",
    )
    submodules: bool = Field(False, title="Submodules", description="Clone submodules too, recursively")
    lfs: bool = Field(False, title="Git LFS", description="Fetch Git LFS files")
    tags: TagRules = Field(default=TagRules(), title="Tags")
    labels: dict[str, str] = Field(
        default={}, title="Labels", description='Extra labels for the image, such as {"team": "web"}'
    )
    limits: LimitsRequest = Field(default=LimitsRequest(), title="Limits")
    builder: Builder = Field(
        Builder.AUTO,
        title="Builder",
        description="auto: BuildKit where the engine can hold its steps to the limits, else classic",
    )

"""Where an alert goes: a block that is made for it, or one that people have made in Prefect, of any notification type.

The address of a webhook is a secret (whoever has it can post there), so it is in a block, which Prefect encrypts, and
nowhere else: not in the automation, not in a setting, not in a command's arguments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import SendgridEmail, SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import SecretStr

from caisson.errors import RequestInvalid
from deployments.names import ALERT_KINDS, AlertKind, alert_name

_WEBHOOK = "webhook"
_TYPES = ("webhook", "slack-webhook", "sendgrid-email")
"""The types of the blocks that are made here, by slug."""
_ADDRESS = re.compile(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+")
_SLACK = re.compile(r"https://hooks\.slack(?:-gov)?\.com/services/[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]+/?")
_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True)
class BlockName:
    """A block as Prefect's pages and commands name it: ``discord-webhook/ops``."""

    type_slug: str
    name: str

    def __str__(self) -> str:
        return f"{self.type_slug}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> BlockName:
        """Raises ``RequestInvalid``.

        >>> str(BlockName.parse("discord-webhook/ops"))
        'discord-webhook/ops'
        """
        slug, _, name = text.partition("/")
        if not _SLUG.fullmatch(slug) or not _SLUG.fullmatch(name):
            raise RequestInvalid(
                f"kind: {text[:80]!r} is none of {', '.join(ALERT_KINDS)}, and names no block of Prefect's.",
                hint="A block is named TYPE-SLUG/NAME, such as discord-webhook/ops; `prefect block ls` shows them.",
            )
        return cls(slug, name)


@dataclass(frozen=True)
class Destination:
    """A block in Prefect. ``by_webhook``: it takes a payload, where others take a subject and a text."""

    document: UUID
    by_webhook: bool


def find_block(client: SyncPrefectClient, wanted: BlockName) -> Destination:
    """The block that people have made. Raises ``RequestInvalid`` where there is none, or it can tell nobody anything,
    and what Prefect's client raises."""
    try:
        client.read_block_type_by_slug(wanted.type_slug)
    except ObjectNotFound:
        raise RequestInvalid(
            f"kind: Prefect has no type of block {wanted.type_slug}.",
            hint="`prefect block type ls` shows those it has.",
        ) from None
    try:
        found = client.read_block_document_by_name(wanted.name, wanted.type_slug, include_secrets=False)
    except ObjectNotFound:
        raise RequestInvalid(
            f"kind: there is no block {wanted} in Prefect.", hint="Make it there, under Blocks, or name another."
        ) from None
    by_webhook = wanted.type_slug == _WEBHOOK
    capabilities = found.block_schema.capabilities if found.block_schema is not None else []
    if not by_webhook and "notify" not in capabilities:
        raise RequestInvalid(
            f"kind: the block {wanted} is of a type that can send no notifications.",
            hint="Name one of a type such as discord-webhook, ms-teams-webhook, pager-duty-webhook or custom-webhook.",
        )
    return Destination(found.id, by_webhook)


def save_block(block: Block, alert: str) -> Destination:
    """Keep what ``make_block`` made as the alert's own; raises what Prefect's client raises."""
    document: Any = block.save(alert_name(alert), overwrite=True)
    return Destination(document, isinstance(block, Webhook))


def remove_blocks(client: SyncPrefectClient, alert: str, *, but: UUID | None = None) -> bool:
    """Remove what was made for an alert, never what people have made; False where nothing was."""
    removed = False
    for slug in _TYPES:
        try:
            document = client.read_block_document_by_name(alert_name(alert), slug, include_secrets=False)
        except ObjectNotFound:
            continue
        if document.id != but:
            client.delete_block_document(document.id)
            removed = True
    return removed


def make_block(kind: AlertKind, secret: str, to: Sequence[str], sender: str) -> Block:
    """A block of ours; raises ``RequestInvalid`` for what its service does not take, and never quotes the secret."""
    if not secret:
        raise RequestInvalid(f"{'API key' if kind == 'email' else 'URL'}: it is empty.")
    if kind == "email":
        for field, address in (("from", sender), *(("to", address) for address in (to or ("",)))):
            if not _ADDRESS.fullmatch(address):
                raise RequestInvalid(f"{field}: {address[:80]!r} is no e-mail address.")
        return SendgridEmail(api_key=SecretStr(secret), sender_email=sender, to_emails=list(to))
    parts = urlsplit(secret)
    # Never quoted: the URL is the secret.
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in secret):
        raise RequestInvalid("URL: it is no http:// or https:// address.")
    if kind == "slack":
        # To any other address Prefect's block would send nothing, and say nothing.
        if not _SLACK.fullmatch(secret):
            raise RequestInvalid(
                "URL: it is no webhook of Slack's (https://hooks.slack.com/services/…).",
                hint="For what takes the same messages elsewhere, set up an alert of kind webhook.",
            )
        return SlackWebhook(url=SecretStr(secret))
    headers = SecretDict({"Content-Type": "application/json"})
    return Webhook(method="POST", url=SecretStr(secret), headers=headers)

"""What a caller may do, by the token that it came with."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from fastapi import Request

from caisson.tokens import Scope, TokenRecord
from deployments.api.problems import Problem


def allowed(*scopes: Scope, whole_host: bool = False) -> Callable[[Request], TokenRecord]:
    """A dependency that gives the caller's token, and refuses one that has none of the scopes.

    ``whole_host``: what is answered tells of everybody's builds, so that a token with limits is refused too.
    """

    def caller(request: Request) -> TokenRecord:
        token = request.state.token
        assert isinstance(token, TokenRecord)
        if not token.grant.may(*scopes):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"The token {token.name!r} has not the scope {' or '.join(scopes)}.",
                kind="scope-missing",
                headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'},
            )
        if whole_host and token.grant.limited:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"The token {token.name!r} is limited to some images or repositories, and this tells of all of them.",
                kind="token-limited",
            )
        return token

    return caller

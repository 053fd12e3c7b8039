"""Images and disks of the host that the API runs on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from caisson.disk_report import DiskReport
from caisson.image_rows import ImageRow, of_repositories
from caisson.retention.patterns import check_repository_pattern
from caisson.tokens import Scope, TokenRecord
from deployments.api.access import allowed
from deployments.api.answers import problems, with_token
from deployments.api.builds import bad_cursor
from deployments.api.context import ApiContext
from deployments.api.links import LIST_IMAGES, next_page
from deployments.api.paging import page_after
from deployments.api.problems import Problem
from deployments.api.read_cache import ReadCache

_DISK_SECONDS = 5.0


class ImagePage(BaseModel):
    """A page of the host's images, those that hold most by themselves first."""

    images: list[ImageRow]
    next: str = Field(description="The `cursor` of the next page; empty after the last one")


def router(context: ApiContext) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["host"], dependencies=[with_token])
    settings = context.settings
    may_read = Depends(allowed(Scope.READ, whole_host=True))
    reports: ReadCache[DiskReport] = ReadCache(lambda _: _DISK_SECONDS, most=1)

    @routes.get(
        "/images",
        operation_id=LIST_IMAGES,
        summary="The images of the host, and whether they stay",
        responses={200: {"links": next_page(LIST_IMAGES)}, **problems()},
    )
    def images(
        repository: Annotated[
            str, Query(description="Only those of repositories like this, such as `team/*`", max_length=255)
        ] = "",
        limit: Annotated[int, Query(description="How many at most", ge=1, le=1000)] = 200,
        cursor: Annotated[str, Query(description="`next` of the page before", max_length=512)] = "",
        _: TokenRecord = may_read,
    ) -> ImagePage:
        """Whether one stays is what a prune would say now, or said up to 20 seconds ago."""
        if repository:
            try:
                check_repository_pattern(repository)
            except ValueError as error:
                raise Problem(
                    422, f"repository: {error}.", kind="request-invalid", errors=[("repository", str(error))]
                ) from None
        found = context.images.rows()
        if repository:
            found = list(of_repositories(found, repository))
        try:
            page, following = page_after(found, lambda row: (-row.marginal_bytes, row.id), cursor, limit)
        except ValueError as error:
            raise bad_cursor(error) from None
        return ImagePage(images=page, next=following)

    @routes.get(
        "/disk",
        operation_id="read_disk",
        summary="How full Docker's disks are, and until when",
        responses=problems(),
    )
    def disk(_: TokenRecord = may_read) -> DiskReport:
        """What holds them (`attribution`) is as the monitor last found it."""
        from deployments.cli_disk import read_disk

        return reports.get("all", lambda: read_disk(settings))

    return routes

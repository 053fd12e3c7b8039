"""What the routers of the API stand on."""

from __future__ import annotations

from dataclasses import dataclass

from caisson.settings import Settings
from deployments.api.build_queue import BuildDeployments
from deployments.api.build_reader import BuildReader
from deployments.api.host_images import HostImages
from deployments.prefect_api import PrefectApi
from deployments.prefect_pool import PrefectPool
from deployments.server import server_url
from deployments.service_store import ServiceStore, store_file
from deployments.token_store import TokenStore


@dataclass(frozen=True)
class ApiContext:
    """Made once for the life of the API's process; everything in it may be used by any thread."""

    settings: Settings
    prefect: PrefectPool
    store: ServiceStore
    tokens: TokenStore
    builds: BuildReader
    deployments: BuildDeployments
    images: HostImages

    @classmethod
    def of(cls, settings: Settings) -> ApiContext:
        """Raises ``StoreUnusable``. Nobody is asked yet: Prefect may still be starting."""
        api_url = settings.api_url or f"{server_url(settings)}/api"
        store = ServiceStore(store_file(settings))
        prefect = PrefectPool(lambda: PrefectApi(api_url, auth=settings.api_auth))
        return cls(
            settings=settings,
            prefect=prefect,
            store=store,
            tokens=TokenStore(store),
            builds=BuildReader(settings, prefect),
            deployments=BuildDeployments(prefect),
            images=HostImages(settings),
        )

    def close(self) -> None:
        self.builds.close()
        self.deployments.close()
        self.images.close()
        self.prefect.close()

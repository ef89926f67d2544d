"""The routes of operators: quotas, registries, hosts, services, zones, networks and images of Zun's API."""

from __future__ import annotations

from typing import NamedTuple

from askos.api import hosts as views
from askos.api import images as image_views
from askos.api.core import PARAMETER_BODY, Route
from askos.api.engine_networks import EngineNetworks
from askos.api.hosts import Hosts
from askos.api.images import Images
from askos.api.microversion import Version
from askos.api.quotas import Quotas
from askos.api.registries import Registries


class Handlers(NamedTuple):
    """Who answers."""

    quotas: Quotas
    registries: Registries
    hosts: Hosts
    networks: EngineNetworks
    images: Images


def routes(h: Handlers) -> list[Route]:
    """The table."""
    project, name = "/v1/quotas/{project}", "/v1/quota_classes/{name}"
    registry, image = "/v1/registries/{ident}", "/v1/images/{ident}"
    services, since_hosts = "/v1/services", Version(1, 4)
    return [
        Route("GET", project, h.quotas.show, "Show a project's quotas", answer="Quotas"),
        Route("PUT", project, h.quotas.update, "Change a project's quotas", answer="QuotaLimits",
              body=h.quotas.schema),
        Route("DELETE", project, h.quotas.delete, "Let the default quotas count for a project", answer="Null"),
        Route("GET", f"{project}/defaults", h.quotas.show_defaults, "Show the default quotas", answer="QuotaLimits"),
        Route("GET", name, h.quotas.show_class, "Show a quota class", answer="QuotaLimits"),
        Route("PUT", name, h.quotas.update_class, "Change a quota class", answer="QuotaLimits",
              body=h.quotas.schema),
        # -- registries
        Route("GET", "/v1/registries", h.registries.list, "List registries", answer="Registries"),
        Route("POST", "/v1/registries", h.registries.create, "Create a registry", 201, "Registry",
              body=h.registries.create_schema),
        Route("GET", registry, h.registries.show, "Show a registry", answer="Registry"),
        Route("PATCH", registry, h.registries.update, "Change a registry", answer="Registry",
              body=h.registries.update_schema),
        Route("DELETE", registry, h.registries.delete, "Delete a registry", 204),
        # -- hosts
        Route("GET", "/v1/hosts", h.hosts.list, "List hosts", answer="Hosts", since=since_hosts),
        Route("GET", "/v1/hosts/{ident}", h.hosts.show, "Show a host", answer="Host", since=since_hosts),
        Route("GET", "/v1/availability_zones", h.hosts.zones, "List availability zones", answer="AvailabilityZones"),
        Route("GET", services, h.hosts.services, "List services", answer="Services"),
        Route("DELETE", services, h.hosts.delete, "Delete a service", answer="Null", query=views.SERVICE_QUERY,
              body=PARAMETER_BODY),
        Route("PUT", f"{services}/enable", h.hosts.enable, "Put a host into service", answer="ServiceSwitched",
              query=views.SERVICE_QUERY, body=PARAMETER_BODY),
        Route("PUT", f"{services}/disable", h.hosts.disable, "Take a host out of service", answer="ServiceSwitched",
              query=views.DISABLE_QUERY, body=PARAMETER_BODY),
        Route("PUT", f"{services}/force_down", h.hosts.force_down, "Say that a host is down",
              answer="ServiceForcedDown", query=views.FORCE_DOWN_QUERY, body=PARAMETER_BODY),
        # -- networks
        Route("POST", "/v1/networks", h.networks.create, "Make a network known", answer="EngineNetwork",
              body=h.networks.schema),
        Route("DELETE", "/v1/networks/{ident}", h.networks.delete, "Forget a network", 204, since=Version(1, 27)),
        # -- images
        Route("GET", "/v1/images", h.images.list, "List images on hosts", answer="HostImages"),
        Route("POST", "/v1/images", h.images.pull, "Fetch an image to a host", 202, "HostImage",
              body=h.images.schema),
        Route("GET", image, h.images.show, "Show an image on a host", answer="HostImage"),
        Route("DELETE", image, h.images.delete, "Remove an image from its host", answer="Null"),
        Route("GET", "/v1/images/{name}/search", h.images.search, "Search for images", answer="FoundImages",
              query=image_views.SEARCH_QUERY),
    ]  # fmt: skip

"""Keystone v3's wire format under /identity, on an identity service of our own."""

from askos.api.keystone.routes import routes
from askos.api.keystone.services import Catalog, default_catalog

__all__ = ["Catalog", "default_catalog", "routes"]

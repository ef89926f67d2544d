"""The small, commonly used part of the Block Storage API v3, over the volume service of this cloud."""

from askos.api.cinder.routes import routes

__all__ = ["routes"]

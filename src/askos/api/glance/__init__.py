"""The commonly used part of the Image API v2, over the image service of this cloud."""

from askos.api.glance.routes import routes

__all__ = ["routes"]

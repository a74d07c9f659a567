"""The Django application."""

from django.apps import AppConfig


class RekindleConfig(AppConfig):
    """`rekindle.django` among INSTALLED_APPS."""

    name = "rekindle.django"
    label = "rekindle"
    verbose_name = "Rekindle"

    def ready(self) -> None:
        """Says what is wrong in settings.REKINDLE before the first request; nothing is opened yet."""
        from .conf import web

        web()

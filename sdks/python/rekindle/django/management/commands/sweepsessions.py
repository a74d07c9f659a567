"""`manage.py sweepsessions`: for a nightly job, where the engine is in the application's processes."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from rekindle import OpenError, RekindleError
from rekindle.django import rekindle


class Command(BaseCommand):
    """Removes what is over from the store."""

    help = "Removes sessions that are over, and what belonged to them, from the store of settings.REKINDLE."

    def handle(self, *args: Any, **options: Any) -> None:
        """Says how many rows that were."""
        try:
            removed = rekindle().sweep()
        except (RekindleError, OpenError) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"removed {removed} rows")

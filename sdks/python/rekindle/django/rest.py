"""Django REST framework."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from ..web import Refusal, Session
from .views import session


class SessionAuthentication(BaseAuthentication):
    """`request.user` is the user of the request's session, `request.auth` the session (`rekindle.Session`).

    The session's user id is the primary key of Django's users; a subclass may find a user otherwise.
    """

    def user_of(self, session: Session) -> Any:
        """The user of a session; None if there is none."""
        users = get_user_model()._default_manager
        try:
            return users.filter(pk=session.user_id, is_active=True).first()
        except (ValueError, TypeError):
            return None

    def authenticate(self, request: Request) -> tuple[Any, Session] | None:
        """None where there just is no session: the view's permissions decide then."""
        try:
            found = session(request)
        except Refusal as refusal:
            # What the browser's half can renew it is told, by the middleware.
            if refusal.is_absence and refusal.code != "access_token_expired":
                return None
            raise
        user = self.user_of(found)
        if user is None:
            raise AuthenticationFailed("the session's user is not known here")
        return user, found

    def authenticate_header(self, request: Request) -> str:
        """So that a request without a session is answered with 401."""
        return "Bearer"

"""Who a session's user is, for Django REST framework."""

from django.contrib.auth.models import User

from rekindle import Session
from rekindle.django.rest import SessionAuthentication


class Visitors(SessionAuthentication):
    """This example has no table of users: whoever is signed in is one. (Without this, a session's user is found by its primary key.)"""

    def user_of(self, session: Session) -> User:
        return User(username=session.user_id)

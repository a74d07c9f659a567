"""Which view answers which path."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.home),
    path("login", views.login),
    path("logout", views.logout),
    path("page", views.page),
    path("rendered", views.rendered),
    path("api/me", views.Me.as_view()),
    path("api/me/online", views.me_online),
    path("api/elevate", views.Elevate.as_view()),
]

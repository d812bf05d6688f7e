"""An app whose author forgot to import the module with the agents."""

from celery import Celery

app = Celery("empty")

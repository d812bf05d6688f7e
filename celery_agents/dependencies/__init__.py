"""Injection: ``Depends``, and the functions to depend on.

    markers       Depends, what users write in a signature
    annotations   what an annotation means, read without importing what only type checkers import
    plan          signature -> Plan, once, when decorated; every mistake is refused here
    resolve       Plan -> keyword arguments, once for each agent task
    passthrough, media                 the dep_* functions
    download, images, videos           how media gets here and becomes pixels; imported on first use only

Importing this package imports neither ``encord`` nor anything that decodes or downloads.
"""

from celery_agents.dependencies.markers import Depends
from celery_agents.dependencies.media import dep_asset, dep_single_frame
from celery_agents.dependencies.passthrough import dep_client, dep_storage_item

__all__ = ["Depends", "dep_asset", "dep_client", "dep_single_frame", "dep_storage_item"]

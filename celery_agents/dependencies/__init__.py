"""Injection: ``Depends``, and the functions to depend on.

    markers       Depends, what users write in a signature
    annotations   what an annotation means, read without importing what only type checkers import
    plan          signature -> Plan, once, when decorated; every mistake is refused here
    callables     what can be known of a function that is planned
    resolve       Plan -> keyword arguments, once for each agent task
    resources     what is loaded once for the process, Depends(…, scope="worker")
    passthrough, media, streams, twins, lookups     the dep_* functions
    by_hand                            what is called instead of injected
    download, images, videos           how media gets here and becomes pixels; imported on first use only

Importing this package imports neither ``encord`` nor anything that decodes or downloads.
"""

from celery_agents.dependencies.by_hand import batch_iterator, download_asset, get_user_client
from celery_agents.dependencies.lookups import DataLookup, dep_data_lookup
from celery_agents.dependencies.markers import Depends
from celery_agents.dependencies.media import dep_asset, dep_single_frame
from celery_agents.dependencies.passthrough import dep_client, dep_storage_item
from celery_agents.dependencies.streams import (
    dep_video_iterator,
    dep_video_sampler,
    iter_video,
    iter_video_with_indices,
)
from celery_agents.dependencies.twins import Twin, dep_twin_label_row
from celery_agents.frames import Frame

__all__ = [
    "DataLookup",
    "Depends",
    "Frame",
    "Twin",
    "batch_iterator",
    "dep_asset",
    "dep_client",
    "dep_data_lookup",
    "dep_single_frame",
    "dep_storage_item",
    "dep_twin_label_row",
    "dep_video_iterator",
    "dep_video_sampler",
    "download_asset",
    "get_user_client",
    "iter_video",
    "iter_video_with_indices",
]

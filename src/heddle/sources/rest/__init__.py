"""Polled HTTP APIs as contract events.

Declared by `RestSource` (source.py) and `Resource` (resource.py); pages in paging.py; what is asked and taken in
listing.py over client.py; how changes are followed in following.py; deletions that nobody
tells in missing.py; where it stands in position.py; run by
puller.py."""

from heddle.http.rate import RateLimit as RateLimit
from heddle.sources.rest.paging import Cursor as Cursor
from heddle.sources.rest.paging import Keyset as Keyset
from heddle.sources.rest.paging import LinkHeader as LinkHeader
from heddle.sources.rest.paging import NextUrl as NextUrl
from heddle.sources.rest.paging import Offset as Offset
from heddle.sources.rest.paging import PageNumber as PageNumber
from heddle.sources.rest.records import PolledRow as PolledRow
from heddle.sources.rest.resource import Feed as Feed
from heddle.sources.rest.resource import GraphQL as GraphQL
from heddle.sources.rest.resource import HighWater as HighWater
from heddle.sources.rest.resource import IdDiff as IdDiff
from heddle.sources.rest.resource import Resource as Resource
from heddle.sources.rest.source import ApiVersion as ApiVersion
from heddle.sources.rest.source import RestSource as RestSource

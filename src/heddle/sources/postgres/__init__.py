"""PostgreSQL's changes as contract events: logical replication through `pgoutput`.

Declared by `PostgresSource` (source.py) and `Table` (tables.py); spoken in replication.py and pgoutput.py; values in
values.py; what has to be right in the database in catalog.py and standing.py; run by puller.py, which merges snapshots
into the stream (window.py)."""

from heddle.sources.postgres.source import PostgresSource as PostgresSource
from heddle.sources.postgres.tables import RowView as RowView
from heddle.sources.postgres.tables import Table as Table

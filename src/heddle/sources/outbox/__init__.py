"""An application's outbox table as a source: declared by `OutboxSource` (source.py), read by puller.py in windows of
transactions; the table in table.py, its rows in row.py, their payloads in payload.py. Applications write
with `Outbox` (writer.py)."""

from heddle.sources.outbox.source import OutboxSource as OutboxSource
from heddle.sources.outbox.writer import Outbox as Outbox

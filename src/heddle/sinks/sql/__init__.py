"""The SQL sink: rows in PostgreSQL, exactly once in effect.

One database transaction holds a batch's rows and its inbox rows; the inbox decides what is new, and Kafka offsets
follow. Declared by `SqlSink` (sink.py), laid out from the contract (layout.py, encode.py), planned (tables.py), written
by one worker's thread (writer.py, batch.py) over one connection (session.py, faults.py)."""

from heddle.sinks.sql.sink import SqlSink as SqlSink

"""The HTTP sink: one call for each event, exactly once in effect where the target keeps idempotency keys.

Declared by `HttpSink` (sink.py); an event is made into a call (call.py), sent, sent again or looked up (sender.py) over
a guarded client (client.py); what the answer means is in answer.py, what events it becomes in telling.py; lanes of keys
are in writer.py."""

from heddle.sinks.http.call import Endpoint as Endpoint
from heddle.sinks.http.call import HttpCall as HttpCall
from heddle.sinks.http.client import Deadlines as Deadlines
from heddle.sinks.http.sender import IdempotencyKey as IdempotencyKey
from heddle.sinks.http.sender import LookUp as LookUp
from heddle.sinks.http.sink import HttpSink as HttpSink
from heddle.sinks.http.telling import HttpAnswer as HttpAnswer

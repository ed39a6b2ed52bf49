"""The transcoder on plans: an engine does the records, the object path does again what the engine refused.

Which words describe a failure, and whether there is one, the object path alone decides. So an engine can be as fast
as it likes, and nobody has to keep two sets of error messages alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from heddle.errors import ContractError, Failure
from heddle.mapping.lowering import Lowered
from heddle.mapping.transcoder import Transcoder
from heddle.wire.engine import FRAME_BYTES, Engine, Outputs

Lower = Callable[[bytes], Lowered]
"""The plan for a writer's frame. Raises what the registry raises, and `ContractError` for a writer that is none."""

_NOTEWORTHY: Final = 100
"""So many honest records in one batch on the object path are a plan that does not fit its data: worth a line."""


class WireTranscoder:
    """One mapping. Plans are made when the first record of a writer comes, and kept."""

    def __init__(self, engine: Engine, lower: Lower, frame: Callable[[], bytes], objects: Transcoder) -> None:
        self._engine = engine
        self._lower = lower
        self._frame = frame
        self._objects = objects
        self._seen: set[bytes] = set()

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[Failure]]:
        """As `Transcoder.transcode`."""
        outputs, refused = self._engine.transcode(values)
        if refused and self._learn([values[index] for index in refused]):
            outputs, refused = self._engine.transcode(values)
        if not refused:
            return outputs, []
        emissions, failures = self._objects.transcode([values[index] for index in refused])
        for index, emission in zip(refused, emissions, strict=True):
            outputs.put(index, emission)
        self._note(len(refused) - len(failures))
        return outputs, [failure._replace(index=refused[failure.index]) for failure in failures]

    def _learn(self, refused: Sequence[bytes | None]) -> bool:
        """Whether a writer was among them that the engine did not know and knows now."""
        learnt = False
        for frame in {value[:FRAME_BYTES] for value in refused if value is not None} - self._seen:
            try:
                lowered, ours = self._lower(frame), self._frame()
            except ContractError:
                continue  # nobody's schema, or the target's is not registered: the object path says so
            self._seen.add(frame)
            reason = lowered.reason
            if lowered.plan is not None:
                try:
                    self._engine.add(frame, lowered.plan, lowered.functions, ours)
                    learnt = True
                    continue
                except ValueError as error:
                    reason = str(error)
            structlog.get_logger().info("mapping without a plan: on the object path", reason=reason)
        return learnt

    def _note(self, done_again: int) -> None:
        if done_again >= _NOTEWORTHY:
            structlog.get_logger().warning(
                "an engine refuses records that are fine: they take the object path, which is slower",
                engine=self._engine.name,
                records=done_again,
            )

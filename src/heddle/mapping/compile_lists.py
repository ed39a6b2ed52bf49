"""Rules over lists as loops, or as comprehensions where nothing inside can fail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from heddle.mapping.compile_conditions import Conditions
from heddle.mapping.numbers import EXACT, ZERO, in_64_bits
from heddle.mapping.rules import Condition, Rule, Total, typed
from heddle.mapping.types import is_integer
from heddle.mapping.wording import CURRENCY_REASON
from heddle.mapping.writer import Place


class Lists(Conditions):
    """Writes what visits items."""

    def each(self, of: Rule, inner: Rule, place: Place) -> str:
        return self._list_of(of, place, lambda item, made: (self.value(inner, place.item(item).indexed(made)), ""))

    def filter(self, of: Rule, where: Condition, place: Place) -> str:
        return self._list_of(of, place, lambda item, _made: (item, self.condition(where, place.item(item))))

    def _list_of(self, of: Rule, place: Place, write: Callable[[str, str], tuple[str, str]]) -> str:
        """`write` gives an element's expression and the test that it must pass, from the names of item and list."""
        given, nullable = self._list(of, place)
        made, item = self.fresh("made"), self.fresh("item")
        lines, (element, test) = self.aside(1, lambda: write(item, made))
        if lines:
            self.line(f"{made} = []")
            with self.block(f"for {item} in {given}{' or ()' if nullable else ''}:"):
                self.lines += lines
                with self.block(f"if {test}:") if test else nullcontext():
                    self.line(f"{made}.append({element})")
        else:
            made = f"[{element} for {item} in {given}{f' if {test}' if test else ''}]"
        return f"(None if {given} is None else {made})" if nullable else made

    def _list(self, of: Rule, place: Place) -> tuple[str, bool]:
        """A list's expression, a name where it may be null."""
        given, nullable = self.value(of, place), typed(of).nullable
        return (self.named(given) if nullable else given), nullable

    def total(self, rule: Total, place: Place) -> str:
        assert rule.rule is not None
        given, nullable = self._list(rule.of, place)
        whole = is_integer(typed(rule).node)
        total, item = self.fresh("total"), self.fresh("item")
        zero, add = ("0", "") if whole else (self.bind("zero", ZERO), self.bind("add", EXACT.add))
        self.line(f"{total} = {zero}")
        currency = self.assign(self.fresh("currency"), "None") if rule.currency else ""
        with self.block(f"for {item} in {given}{' or ()' if nullable else ''}:"):
            inside = place.item(item)
            amount = self.value(rule.rule, inside)
            if rule.currency is not None:
                self._same_currency(currency, self.value(rule.currency, inside), place)
            self.line(f"{total} = " + (f"{total} + {amount}" if whole else f"{add}({total}, {amount})"))
        if whole:
            total = self.guarded(f"{self.bind('in_64_bits', in_64_bits)}({total})", place)
        return f"(None if {given} is None else {total})" if nullable else total

    def _same_currency(self, known: str, expression: str, place: Place) -> None:
        with self.block(f"if {known} is None:"):
            self.line(f"{known} = {expression}")
        with self.block(f"elif {known} != {expression}:"):
            self.refuse("currency", place.at, CURRENCY_REASON)

    def first(self, of: Rule, inner: Rule | None, place: Place) -> str:
        assert inner is not None
        given = self.named(self.value(of, place))
        name, item = self.fresh("t"), self.fresh("item")
        self.line(f"{name} = None")
        with self.block(f"if {given}:"):
            self.line(f"{item} = {given}[0]")
            self.give(name, inner, place.item(item))
        return name

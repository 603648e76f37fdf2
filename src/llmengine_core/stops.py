"""Stop sequences, found while text comes in pieces.

Engines are never given stop sequences: they limit how many there may be, look at token borders, or differ in
which of two matches ends the text. A ``StopMatcher`` reads what an engine generates and says when to cancel.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

__all__ = ["StopMatcher"]


class StopMatcher:
    """Passes text on until a stop sequence is complete.

    Text ends at the match that completes at the earliest character; of those that complete there, the one
    that starts the earliest counts. What is passed on is never taken back: the longest end of the text that
    could still become a stop sequence waits, and no more than that. How the text was cut into pieces makes
    no difference.

    >>> matcher = StopMatcher(["\\n\\n"])
    >>> matcher.feed("one\\n"), matcher.feed("two\\n"), matcher.feed("\\nthree"), matcher.stopped
    ('one', '\\ntwo', '', True)
    """

    __slots__ = ("_held", "_include", "_state", "_stops", "stopped")

    def __init__(self, stops: Iterable[str], include: bool = False) -> None:
        """``stops`` are non-empty, any number of them. With ``include`` the stop text is passed on too."""
        self.stopped = False
        """Whether a stop sequence was completed; the text is over then."""
        self._include = include
        self._held = ""
        """What was fed and not passed on; as long as ``_state`` is deep, unless ``include``."""
        self._stops = _Stops(stops)
        self._state = self._stops.root

    def feed(self, text: str) -> str:
        """Take the next piece of text; gives what can be passed on. Nothing after a stop."""
        if self.stopped:
            return ""
        node, step = self._state, self._stops.step
        for index, character in enumerate(text):
            node = node.known.get(character) or step(node, character)
            if node.match:
                self.stopped = True
                whole = self._held + text[: index + 1]
                self._held = ""
                return whole if self._include else whole[: len(whole) - node.match]
        self._state = node
        if self._include:
            return text
        whole = self._held + text
        shown = len(whole) - node.depth
        self._held = whole[shown:]
        return whole[:shown]

    def flush(self) -> str:
        """The text has ended by itself; gives what was still held back."""
        rest, self._held = self._held, ""
        self._state = self._stops.root
        return rest


class _Stops:
    """The stop sequences as an automaton, of which only the places that a text comes to are ever made.

    So any number of them costs no more than sorting them.
    """

    __slots__ = ("_sorted", "root")

    def __init__(self, stops: Iterable[str]) -> None:
        self._sorted = sorted(set(stops))
        if self._sorted[:1] == [""]:
            raise ValueError("a stop sequence is empty; it would match everywhere")
        self.root = _Node(0, 0, len(self._sorted))

    def step(self, node: _Node, character: str) -> _Node:
        """Where one more character leads."""
        made: list[_Node] = []
        place: _Node | None = node
        found = self.root
        while place is not None:
            if character not in place.children:
                following = place.children[character] = self._child(place, character)
                if following is not None:
                    made.append(following)
            elif (following := place.children[character]) is not None:
                found = following
                break
            place = place.fall
        for each in reversed(made):  # the shortest first: a place needs to know what it falls to
            each.fall = found
            each.match = each.match or found.match
            found = each
        node.known[character] = found
        return found

    def _child(self, node: _Node, character: str) -> _Node | None:
        """The stop sequences of a place that go on with a character; None where none does."""
        depth = node.depth
        # The one that ends here, if any, sorts before those that go on.
        first = node.first + (node.first < node.last and len(self._sorted[node.first]) == depth)
        first = bisect_left(self._sorted, character, first, node.last, key=lambda stop: stop[depth])
        last = bisect_right(self._sorted, character, first, node.last, key=lambda stop: stop[depth])
        if first == last:
            return None
        child = _Node(depth + 1, first, last)
        if len(self._sorted[first]) == depth + 1:
            child.match = depth + 1
        return child


class _Node:
    """A place in the stop sequences: all that was read is the longest end of the text that starts one."""

    __slots__ = ("children", "depth", "fall", "first", "known", "last", "match")

    def __init__(self, depth: int, first: int, last: int) -> None:
        self.depth = depth
        """How many characters lead here."""
        self.first, self.last = first, last
        """Those of the sorted stop sequences that start with what leads here; ``last`` is exclusive."""
        self.children: dict[str, _Node | None] = {}
        """By the next character, as far as it was met; None for one that none goes on with."""
        self.known: dict[str, _Node] = {}
        """Where a text goes on from here, as far as one did."""
        self.fall: _Node | None = None
        """The longest true end of what leads here that also starts a stop sequence; None at the root."""
        self.match = 0
        """Length of the longest stop sequence that is complete here."""

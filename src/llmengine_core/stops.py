"""Stop sequences, found while text comes in pieces.

Engines are never given stop sequences: they limit how many there may be, look at token borders, or differ in
which of two matches ends the text. A ``StopMatcher`` reads what an engine generates and says when to cancel.
"""

from __future__ import annotations

from collections import deque
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

    __slots__ = ("_held", "_include", "_root", "_state", "stopped")

    def __init__(self, stops: Iterable[str], include: bool = False) -> None:
        """``stops`` are non-empty, any number of them. With ``include`` the stop text is passed on too."""
        self.stopped = False
        """Whether a stop sequence was completed; the text is over then."""
        self._include = include
        self._held = ""
        """What was fed and not passed on; as long as ``_state`` is deep, unless ``include``."""
        self._root = self._state = _Node(0)
        self._build(stops)

    def feed(self, text: str) -> str:
        """Take the next piece of text; gives what can be passed on. Nothing after a stop."""
        if self.stopped:
            return ""
        node = self._state
        for index, character in enumerate(text):
            node = _step(node, character)
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
        self._state = self._root
        return rest

    def _build(self, stops: Iterable[str]) -> None:
        for stop in stops:
            if not stop:
                raise ValueError("a stop sequence is empty; it would match everywhere")
            node = self._root
            for character in stop:
                if character not in node.children:
                    node.children[character] = _Node(node.depth + 1)
                node = node.children[character]
            node.match = len(stop)
        waiting = deque([self._root])
        while waiting:
            parent = waiting.popleft()
            for character, node in parent.children.items():
                if parent.fall is not None:
                    node.fall = _step(parent.fall, character)
                else:
                    node.fall = self._root
                node.match = node.match or node.fall.match
                waiting.append(node)


class _Node:
    """A place in the stop sequences: all that was read is the longest end of the text that starts one."""

    __slots__ = ("children", "depth", "fall", "match")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        """How many characters lead here."""
        self.children: dict[str, _Node] = {}
        self.fall: _Node | None = None
        """The longest true end of what leads here that also starts a stop sequence; None at the root."""
        self.match = 0
        """Length of the longest stop sequence that is complete here."""


def _step(node: _Node, character: str) -> _Node:
    while True:
        following = node.children.get(character)
        if following is not None:
            return following
        if node.fall is None:
            return node
        node = node.fall

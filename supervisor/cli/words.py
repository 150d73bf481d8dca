"""What a user has typed, in messages: shown in short, and what he may have meant by it."""

from collections.abc import Collection, Mapping

SHOWN_MAX_CHARS = 60


def shortened(word: str) -> str:
    """Of a long one the beginning; of an empty one the quotes."""
    return (word if len(word) <= SHOWN_MAX_CHARS else f"{word[:SHOWN_MAX_CHARS]}…") or "''"


def did_you_mean(word: str, words: Collection[str], others: Mapping[str, str] | None = None) -> str:
    """To be added to a message: which of `words` is most like `word`, or what is called so elsewhere (`others`)."""
    from supervisor.spec.faults import nearest  # noqa: PLC0415 (slow to load)

    near = (others or {}).get(word.lower()) or nearest(word, words)
    return f"; did you mean {near}?" if near else ""

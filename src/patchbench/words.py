"""Numbers with their nouns, and lists of words, for sentences."""


def count(n: int, noun: str, plural: str = "") -> str:
    """Spell a number of things: 1 channel, 3 channels, 1,024 patches. plural: given if it is not the noun with an s."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def listed(words: list[str]) -> str:
    """Join words for a sentence: a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))

"""Names of other people as text that a terminal and a log can show. Not for: JSON, which has them.

Names of tensors, files and layers come out of files that somebody else wrote. Shown as they are,
they could move the cursor, start lines of their own, turn the direction of what follows or hide.
"""

from __future__ import annotations

# What no font shows and Python calls printable all the same: the rest of Unicode's
# Default_Ignorable_Code_Point (DerivedCoreProperties.txt of Unicode 16).
_UNSEEN = frozenset(
    chr(code)
    for first, last in (
        (0x034F, 0x034F),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFFA0, 0xFFA0),
        (0xE0100, 0xE01EF),
    )
    for code in range(first, last + 1)
)


def printable(text: str, *, keep: str = "") -> str:
    r"""The text with escapes, such as ``\x1b``, for what is no visible character or plain space.

    That is for control characters and line breaks, marks of direction, what has no width, and the
    lone surrogates that stand for bytes which are not UTF-8. What was escaped once stays as it is.

    Args:
      text: Any text.
      keep: Characters to leave alone.
    """
    if text.isprintable() and _UNSEEN.isdisjoint(text):
        return text
    return "".join(
        c
        if (c.isprintable() and c not in _UNSEEN) or c in keep
        else c.encode("unicode_escape").decode("ascii")
        for c in text
    )

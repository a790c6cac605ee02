"""Foreign names as text that a terminal and a log can show. Not for: JSON, which keeps them as is.

Names of tensors, files and layers come from files that somebody else wrote. Unescaped, they could
move the cursor, start new lines, reverse the direction of the text that follows, or be invisible.
"""

from __future__ import annotations

# Invisible characters that Python calls printable: the rest of Unicode's
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
    r"""The text with escapes, such as ``\x1b``, for all but visible characters and plain spaces.

    Escaped are control characters, line breaks, direction marks, characters without width, and lone
    surrogates, which stand for bytes that are not UTF-8. An escaped text stays as it is.

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

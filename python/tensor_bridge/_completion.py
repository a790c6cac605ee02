"""What a shell may complete on the command line, and the functions that ask for it.

The shells ask the command itself, so a new command or option needs no change here.
Not for: names of files, which the shells complete where there is nothing else.
"""

from __future__ import annotations

from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterable, Iterator, Sequence

# The command that they call prints a word a line. Its last argument is the word to complete.
SCRIPTS = {
    "bash": r"""
_tensor_bridge() {
  local IFS=$'\n'
  COMPREPLY=($(tensor-bridge completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _tensor_bridge tensor-bridge
""",
    "zsh": r"""
#compdef tensor-bridge
_tensor_bridge() {
  local -a found
  found=("${(@f)$(tensor-bridge completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n $found[1] ]]; then compadd -- $found; else _files; fi
}
compdef _tensor_bridge tensor-bridge
""",
    "fish": r"""
function __tensor_bridge
  set -l words (commandline -opc) (commandline -ct)
  tensor-bridge completion words -- $words[2..-1] 2>/dev/null
end
complete -c tensor-bridge -a '(__tensor_bridge)'
""",
}


def completions(parser: ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words that may stand in place of the last one, which is the beginning of a word."""
    *before, begun = words or [""]
    for word in before:
        parser = _commands(parser).get(word, parser)
    return sorted(word for word in _next(parser, before, begun) if word.startswith(begun))


def _commands(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            return dict(action.choices)
    return {}


def _next(parser: ArgumentParser, before: Sequence[str], begun: str) -> Iterator[str]:
    for action in parser._actions:
        if before and before[-1] in action.option_strings and action.nargs != 0:
            yield from _choices(action.choices)
            return
    if begun.startswith("-"):
        yield from (option for action in parser._actions for option in action.option_strings)
        return
    for action in parser._actions:
        if not action.option_strings:
            yield from _choices(action.choices)


def _choices(choices: Iterable[object] | None) -> Iterator[str]:
    yield from map(str, choices or ())

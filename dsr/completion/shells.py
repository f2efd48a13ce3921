"""The scripts for bash, zsh and fish, and what `dsr` answers to them."""

from __future__ import annotations

import os
import sys

from dsr.completion.complete import complete, read_table

VARIABLE = "_DSR_COMPLETE"  # names the shell that asks
_BASH = r"""_dsr_completion() {
    local IFS=$'\n' line="${COMP_LINE:0:$COMP_POINT}"
    COMPREPLY=( $(_DSR_COMPLETE=bash _DSR_LINE="$line" _DSR_BREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null) )
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then compopt -o nospace; fi
}
complete -F _dsr_completion dsr
"""
_ZSH = r"""#compdef dsr
_dsr() {
    eval "$(_DSR_COMPLETE=zsh _DSR_LINE="${(pj:\n:)words[1,$CURRENT]}" dsr 2>/dev/null)"
}
if [ "$funcstack[1]" = "_dsr" ]; then _dsr "$@"; else compdef _dsr dsr; fi
"""
_FISH = r"""function __dsr_complete
    set -lx _DSR_COMPLETE fish
    set -lx _DSR_LINE (commandline -opc | string collect)
    set -lx _DSR_WORD (commandline -ct)
    command dsr 2>/dev/null
end
complete -c dsr -f -a '(__dsr_complete)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def answer(shell: str, line: str) -> str:
    """What the script of a shell reads: one candidate a line, or code for zsh.

    `line` is the command line up to the cursor: as typed for bash, one word a line for the others.
    """
    table = read_table()
    if shell == "bash":
        words = _split(line)
        found = complete(words[1:], table)
        # bash replaces only what stands behind the last character that it takes for the end of a word.
        breaks = os.environ.get("_DSR_BREAKS", " :=")
        kept = max((words[-1].rfind(each) for each in ":=" if each in breaks), default=-1) + 1
        cut = max(0, kept - (len(words[-1]) - len(found.replaces)))
        return "".join(f"{_escaped(word[cut:])}\n" for word in found.words)
    words = line.split("\n")
    found = complete(words[1:], table)
    prefix = words[-1][: len(words[-1]) - len(found.replaces)] if words else ""
    if shell == "fish":
        return "".join(f"{prefix}{word}\t{_one_line(told)}\n" for word, told in found.words.items())
    folders = [prefix + word for word in found.words if word.endswith("/")]
    others = [prefix + word for word in found.words if not word.endswith("/")]
    return "".join(
        f"compadd {options}-- {' '.join(map(_quoted, each))}\n"
        for options, each in (("-S '' ", folders), ("", others))
        if each
    )


def _split(line: str) -> list[str]:
    """The words of a line as a shell reads them, without expanding anything; the last one may be open or empty."""
    words, word, quote, escaped = [], "", "", False
    for character in line:
        if escaped:
            word, escaped = word + character, False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote, word = ("", word) if character == quote else (quote, word + character)
        elif character in "'\"":
            quote = character
        elif character in " \t":
            words += [word] if word else []
            word = ""
        else:
            word += character
    return [*words, word]


def _escaped(word: str) -> str:
    return "".join(f"\\{each}" if each in " \t\\'\"$&;|<>()*?[]#~`!{}" and each != "~" else each for each in word)


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    """Answers the shell that `_DSR_COMPLETE` names."""
    if os.environ[VARIABLE] not in SCRIPTS:  # a script of an earlier version
        sys.exit(1)
    try:
        shell, line = os.environ[VARIABLE], os.environ.get("_DSR_LINE", "")
        if shell == "fish":  # an empty word at the end would be lost in a list
            line += "\n" + os.environ.get("_DSR_WORD", "")
        sys.stdout.write(answer(shell, line))
    except (OSError, ValueError, KeyError):  # a broken table must not print into a command line
        sys.exit(1)

"""Extracts the final answer from a reply."""

from __future__ import annotations

import re

from runtime.answers import dates, numbers
from runtime.answers.json_value import json_answer
from runtime.answers.notation import bare, boxes

_TAIL = 100_000  # characters at the end of a reply in which an answer is looked for
_MAX_LENGTH = 1000  # characters of an answer, or of the line it stands in
_STATEMENTS = 20  # looked at, from the last on

_UNBRACED_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z{])[ \t]*([^\s{}$]+)")
_STATED = re.compile(
    r"""
      \banswers?\b [^\n.?!:=]{0,60}? (?:\bis\b|\bare\b|[:=])
    | \b(?:correct|right|best)[ ](?:option|choice)\b [^\n.?!:=]{0,40}? (?:\bis\b|:)
    | ^[#* \t]*(?:the[ ])?(?:final[ ]|correct[ ])?answer[* \t]*$
    | ^(?:\#{4}|A(?:ns)?:)(?=[ ]*[-+$]?\d)
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_NONE = re.compile(
    r"(?i)\b(?:i|we)\s+(?:do\s+not|don['’]t|cannot|can['’]t|am\s+not)\b"
    r"|\bnot (?:clear|sure|certain)\b|\bunclear\b|\bsorry\b"
)
# A choice or a yes at the start of a sentence that goes on; "A, B and C" is a list.
_LEADING = re.compile(
    r"(?:(?:[A-J]|\([A-Ja-j]\))(?!,\s*\(?[A-J]\b)|(?i:yes|no|true|false))(?=\s*(?:[,.;:–—]|$)|\s+(?:because|since)\b)"
)
# A dash before a word begins a reason; between numbers and short names it is a minus.
_REASON = re.compile(
    r",?\s+(?:because|since)\b|,\s+(?:which|so|as|not|but|rather|where|and so)\b|\s+[–—-]\s+(?=[^\W\d_]{3})"
)
_WHICH_IS = re.compile(r"[-+*/×=]\s*[\d.]+,? (?:which|that) (?:is|equals|gives) ([-+]?[$€£]?\d[\d.,]*(?<![.,]))$")
_SENTENCE_END = re.compile(r"(?<=[^\s.])[.?](?=\s|$)|(?<=[\w*])!(?=\s|$)")
_SPAN = re.compile(r"\*\*([^*\n]+)\*\*|__([^_\n]+)__|\$\$([^$\n]+)\$\$|\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)|\\\((.+?)\\\)")
_DIGITS = r"\d{1,3}(?:[. ]\d{3})+,\d{1,2}|\d+,\d{1,2}(?!\d|[.,]\d)|(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?"
_NUMBER = re.compile(
    rf"(?<![\w.^{{}}\\:,])[-+−]?(?:[$€£]\s?)?(?:\d+:\d\d|{_DIGITS})(?:\s?\\?%)?"
    r"(?!\d|[.,:/]\d|(?:st|nd|rd|th)\b)(?:[a-z]{2,3}(?!\w)|(?!\w))"
)
_PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{2,}")
# A reply of one sentence in which something is said to be something, once, and not only in a clause of it.
_SAYS = re.compile(
    r"(?:(?!\b(?:is|are|was|were|equals|est|ist|es|if|whether)\b)[^.?!:;,=\n])+"
    r"(?<!\bhow )(?<!\bthat )(?<!\bthere )(?<!\bwhat )(?<!\bwhich )(?<!\bwho )"
    r"\b(?:is|are|was|were|equals|est|ist|es)\s+(?:\w+\s+by\s+)?(?:(?:an?|the)\s+)?([^?!:;=\n]+)!?",
    re.IGNORECASE,
)
# "Paris is the capital of France." names Paris: what it is stood in the question.
_NAMES = re.compile(
    r"((?!(?:The|An?|This|That|It|He|She|There|These|Those|What|Which|Who|Here|They|We|You|I)\b)"
    r"[^\W\d_a-z][\w'’.-]*(?:[ ](?:[^\W\d_a-z][\w'’.-]*|of|de|la|van|von)){0,3})"
    r"\s+(?:is|was|est|ist|es)\s+(?:the|la|le|die|der|das|el)\s+[^\n.?!:;,=]+?\s(?:of|in|for|that|de|von|du)\b[^\n.?!:;=]*[.!]?",
)
# A list in a sentence: "are 2, 3, 5, and 7", "are: red, blue and yellow".
_ENTRY = r"[^\s,]{1,30}(?:[ ][^\s,]{1,30})?"  # without commas: a list can be cut in one way only
_LAST = r"(?:,[ ]+(?:and[ ]+)?|[ ]+and[ ]+)"
_LISTS = re.compile(rf"\b(?:is|are|were)\s*:?\s+({_ENTRY}(?:,[ ]+{_ENTRY}){{0,40}}{_LAST}{_ENTRY})")
_ONLY_LIST = re.compile(rf"[\w.-]{{1,30}}(?:,[ ]+[\w.-]{{1,30}}){{1,40}}{_LAST}[\w.-]{{1,30}}")
_THERE_ARE = re.compile(
    r"(?i)(?:(?:so|thus|therefore|hence),? )?there (?:are|is|were|was) (?:about |exactly |approximately )?$"
)
_NUMBER_FIRST = re.compile(
    r"([-+]?[$€£]?\d[\d.,/]*) (?:(?:because|since)\b|(?:is|was) (?:the )?"
    r"(?:larger|largest|greater|greatest|bigger|biggest|smaller|smallest|less|least|higher|highest|lower|lowest)\b).*"
)
_FIRST_SAYS = re.compile(
    r"(?:The|Its|His|Her)\s[^\n.?!:;,=]+?\s(?:is|was)\s+((?:[^\W\d_a-z][\w'’-]*)(?:[ ][^\W\d_a-z][\w'’-]*){0,2})"
    r"(?=[.!](?:\s|$)|,\s+(?:an?|the|which|who|where|located|known)\b)"
)
_EQUATION = re.compile(r"[-+*/×·÷^().,\d\s$]+=\s*([-+]?[$€£]?\d[\d.,]*)\.?")
_ONE_OR_TWO_WORDS = re.compile(r"[^\W\d_]{2,}(?:[ -][^\W\d_]{2,})?")
# A sentence that ends by saying what something comes to, in some languages.
_ENDS_IN = re.compile(
    r"(?i)(?::|\b(?:is|are|equals|becomes|gives(?: us)?|makes|simplifies to|comes to"
    r"|ist|sind|macht|ergibt|est|font|fait|es|son))"
    r"(?: (?:equal to|about|approximately|gleich|égale? à|de|igual a))? \W*$"
)
_DENIES = re.compile(r"(?i)\b(?:not|neither|nor|(?:no|never)\s+[^\W\d_]+)\b|n['’]t\b")
_CONCLUDES = re.compile(r"(?i)\b(?:so|thus|therefore|hence|total|altogether|finally|in all|must be|equals)\b")


def extract(text: str) -> str | None:
    """The final answer in a reply (the text after the thought), or None: the reply abstains.

    A reply that is a JSON object or array is its own answer, of any length. Else the first of these that is there:

    1. the last `\\boxed{}` or `\\fbox{}` with balanced braces (also `\\boxed 5`); an empty one does not count;
    2. the last statement of it: "answer: ...", "the answer is ...", "the correct option is ...", `#### 72`, `A: 72`;
       the answer may stand on the next line, and ends where a reason begins ("because", ", which"). A statement of
       more than five words counts by the one thing marked bold or as math in it, or by its one number;
    3. the whole reply, when it is one line of at most three words, or one line that begins with a choice, a yes or
       a no ("(B) Paris", "Yes, he is."); a list; or the one or two words, or the number, that end a reply of one
       sentence which says what something is ("The opposite of 'hot' is cold."), and denies nothing; or the name that
       begins one ("Paris is the capital of France.");
    4. the last sentence of the last line: its one bold or math span, the result of its last equation, its one
       number or date, the number at its end ("3 fois 4,5 font 13,5."), or the last of several numbers beside a word
       such as "so", "therefore" or "total"; with its measure. Questions and code say nothing;
    5. the equation or the name in the first sentence of a reply that says nothing more.
    """
    if (value := json_answer(text)) is not None:
        return value
    whole = len(text) <= _TAIL
    text = re.sub(r"<<[^<>\n]*>>", "", text[-_TAIL:])  # the calculator's notes in GSM8K
    text = re.sub(r"(?<=[\w )])\\(?=[*_#][\w (*])", "", text)  # 17\*3: Markdown's sign for a star that is no emphasis
    answer = extract_boxed(text) or _stated(text) or _whole(text) or _concluded(text)
    if answer is None and whole:
        answer = _opened(text)
    return answer if answer and len(answer) <= _MAX_LENGTH else None


def extract_boxed(text: str) -> str | None:
    found = [(start, text[begin:end]) for start, begin, end in boxes(text) if end - begin <= _MAX_LENGTH]
    found += [(match.start(), match[1]) for match in _UNBRACED_BOX.finditer(text)]
    for _, content in sorted(found, reverse=True):
        if answer := _something(content):
            return answer
    return None


def _stated(text: str) -> str | None:
    for match in list(_STATED.finditer(text))[: -_STATEMENTS - 1 : -1]:
        after = text[match.end() : match.end() + 2 * _MAX_LENGTH].lstrip(" \t:=*_\r").lstrip()
        line, _, _ = after.partition("\n")
        if line.strip() in ("$$", r"\["):
            line = after[len(line) :].strip().partition("\n")[0]
        if answer := _in_statement(line[:_MAX_LENGTH]):
            return answer
    return None


def _in_statement(line: str) -> str | None:
    if _NONE.search(line):
        return None
    if line.count("**") % 2:  # the other one stands before the statement
        line = "".join(line.rpartition("**")[::2])
    line = line.strip()
    if leading := _LEADING.match(line.lstrip("*")):
        return leading[0]
    end = _SENTENCE_END.search(line)
    phrase, more = (line[: end.start()], line[end.end() :].strip(" *")) if end else (line, "")
    if result := _WHICH_IS.search(phrase):  # "The answer is indeed 17 * 3, which is 51."
        return result[1]
    phrase = _REASON.split(phrase, maxsplit=1)[0]
    answer = _something(_result(bare(phrase)))
    if answer is None or numbers.read(answer):
        return answer
    words, counted = len(_PLAIN_WORD.findall(answer)), list(_NUMBER.finditer(answer))
    if words < 3 or (words <= 5 and not counted):
        return answer
    return _marked(phrase) or (counted[0][0].strip() if len(counted) == 1 and not more else None)


def _whole(text: str) -> str | None:
    line = text.strip()
    if "\n" in line or len(line) > _MAX_LENGTH or _NONE.search(line) or line.endswith("?"):
        return None
    if leading := _LEADING.match(line):
        return leading[0]
    if first := _NUMBER_FIRST.fullmatch(line):
        return first[1]
    if answer := _said(line):
        return answer
    if answer := _listed(line) or _named(line):
        return answer
    if len(line.split()) <= 3 or re.match(r"\(?[A-J]\)\s", line):
        return _marked(line) or _something(line)
    return None


def _said(sentence: str) -> str | None:
    said = None if _DENIES.search(sentence) else _SAYS.fullmatch(sentence)
    answer = bare(said[1]) if said else ""
    return answer if _ONE_OR_TWO_WORDS.fullmatch(answer) or numbers.read(answer) else None


def _named(sentence: str) -> str | None:
    """Paris of "Paris is the capital of France."."""
    named = None if _DENIES.search(sentence) else _NAMES.fullmatch(sentence.replace("*", ""))
    return named[1] if named else None


def _listed(sentence: str) -> str | None:
    """The list that ends a sentence of one: "2, 3, 5, and 7"."""
    sentence = sentence.replace("*", "").strip(" .!")
    if _ONLY_LIST.fullmatch(sentence):
        return sentence
    if _DENIES.search(sentence) or not (found := _LISTS.search(sentence)) or found.end() != len(sentence):
        return None
    *_, last = found[1].split(", ")
    return found[1] if not re.match(r"(?:not|but|so|which|as|because)\b", last) else None


def _opened(text: str) -> str | None:
    """What the first sentence says, where nothing after it says more: a name, or the result of its one equation."""
    first, _, rest = text.strip().partition("\n")
    first = first[:_MAX_LENGTH]
    if _NONE.search(first) or text.rstrip().endswith("?"):
        return None
    if (match := _EQUATION.fullmatch(first.strip())) and "=" not in rest and not _CONCLUDES.search(rest):
        return match[1].rstrip(".,")
    said = _FIRST_SAYS.match(first.replace("*", ""))
    if said is None or rest.strip() or _DENIES.search(first[: said.end()]) or _CONCLUDES.search(first):
        return None
    return said[1]


def _concluded(text: str) -> str | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[-1] in ("$$", r"\]"):
        lines.pop()
    if not lines or lines[-1].startswith(("```", "~~~")) or lines[-1].endswith("?") or len(lines[-1]) > _MAX_LENGTH:
        return None
    line = re.sub(r"^(?:[-*•]|\d{1,2}[.)])\s+", "", lines[-1])
    *_, sentence = [part for part in re.split(r"(?<=[.!?])\s+", line) if part]
    if marked := _marked(sentence):
        return marked
    before, equals, result = sentence.rpartition("=")
    if not equals and len(days := dates.dates_in(sentence)) == 1:
        return days[0]
    counted = list(_NUMBER.finditer(result if equals else sentence))
    if equals and counted:
        return _with_measure(result, counted[0])
    if equals and not _PLAIN_WORD.search(before + result):
        return _something(result)
    if counted and _THERE_ARE.match(sentence[: counted[0].start()]):
        return _with_measure(sentence, counted[0])
    if counted and (len(counted) == 1 or _CONCLUDES.search(sentence) or _ends_in(sentence, counted[-1])):
        return _with_measure(sentence, counted[-1])
    return None


def _ends_in(sentence: str, last: re.Match[str]) -> bool:
    """Whether a sentence says at its end that something is its last number: "3 fois 4,5 font 13,5 cm."."""
    behind = sentence[last.end() :].strip(" .!*")
    return len(behind.split()) < 3 and bool(_ENDS_IN.search(sentence[: last.start()])) and not _DENIES.search(sentence)


def _with_measure(sentence: str, number: re.Match[str]) -> str:
    """A number with the scale or the measure behind it, which tell apart 2 and 2 million, 5 cm and 5 m."""
    digits = number[0].strip()
    word = re.match(r"\s?(°\s?[CF]\b|[A-Za-z]{2,12}\b(?!['’-]))", sentence[number.end() :])
    return f"{digits} {word[1]}" if word and numbers.is_measure(word[1]) else digits


def _marked(sentence: str) -> str | None:
    """The one thing that is bold or math in a sentence; of an equation, its result. A bold line is a heading."""
    spans = {next(filter(None, match.groups())) for match in _SPAN.finditer(sentence)}
    if len(spans) != 1:
        return None
    [span] = spans
    answer = _something(_result(bare(span)))
    is_heading = len(bare(sentence)) <= len(span) and not _NUMBER.search(span)
    is_name = "**" not in sentence and not any(character.isdigit() for character in span)
    return None if is_heading or is_name or len(span.split()) > 5 else answer


def _result(text: str) -> str:
    """What an equation of plain numbers comes to: 7 of "3 + 4 = 7"."""
    before, equals, result = text.rpartition("=")
    return bare(result) if equals and result.strip() and not re.search(r"[A-Za-z<>!]", before) else text


def _something(text: str) -> str | None:
    """An answer without the notation around it; None when it is empty, a placeholder or a box that was never closed."""
    answer = bare(text)
    empty = not answer.strip(" ._…?") or answer in (r"\ldots", r"\dots")
    return None if empty or re.search(r"\\(?:boxed|fbox)(?![A-Za-z])", answer) else answer

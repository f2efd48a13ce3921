"""Numbers as people and models write them, read exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from runtime.answers.notation import simple

_MAX_LENGTH = 200
_MAX_EXPONENT = 400  # more digits than any answer has; keeps powers of ten small

_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# Words for the same measure. Two different measures are two different answers.
_MEASURES = {
    name: names.split()[0]
    for names in (
        "% percent pct percentage", "$ dollar dollars usd buck bucks", "€ euro euros eur", "£ gbp",
        "lb lbs", "pound pounds",
        "¥ yen", "₹ rupee rupees", "¢ cent cents", "mm millimeter millimeters millimetre millimetres",
        "cm centimeter centimeters centimetre centimetres", "m meter meters metre metres",
        "km kilometer kilometers kilometre kilometres", "inch inches", "ft foot feet", "yd yard yards",
        "mi mile miles", "mg milligram milligrams", "g gram grams", "kg kilogram kilograms", "oz ounce ounces",
        "ml milliliter milliliters millilitre millilitres", "l liter liters litre litres", "s sec secs second seconds",
        "min mins minute minutes", "h hr hrs hour hours", "day days", "week weeks", "month months", "year years",
        "° degree degrees deg", "°c celsius centigrade", "°f fahrenheit", "rad radian radians",
        "mi/h mph", "km/h kmh kph", "m/s", "am", "pm",
    )
    for name in names.split()
}  # fmt: skip
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate(_ONES)} | {word: 10 * tens for tens, word in enumerate(_TENS, 2)}
_WORD = re.compile(rf"({'|'.join(_WORDS)})(?:[- ]({'|'.join(_ONES[1:10])}))?(?=$| )", re.IGNORECASE)
_ABOUT = re.compile(r"^(?:≈|~|about |approximately |approx\.? |around |roughly |exactly |in (?=\d))\s*", re.IGNORECASE)
_SHORTER = {"pound": ("£", "lb"), "°": ("°c", "°f")}  # the measures that a word may stand for
# Words behind a number that do not say what was counted.
_NO_NOUNS = frozenset(
    ("a", "all", "altogether", "an", "are", "each", "in", "is", "left", "more", "now", "of", "still", "the", "total")
)
_NO_UNITS = ("and", "minus", "not", "or", "out", "plus", "times", "to")

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?:[ ]\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?)\ ?(?P<currency>[$€£¥₹]?)\ ?(?P<sign2>-?)\ ?
    (?:
        (?:(?P<whole>\d+)\ ?)?\\frac\{{(?P<over>-?{_PLAIN})\}}\{{(?P<under>{_PLAIN})\}}
      | (?:(?P<whole2>\d+)\ )?(?P<over2>{_PLAIN})\ ?/\ ?(?P<under2>{_PLAIN})
      | 10\^\{{?(?P<exponent3>-?\d+)\}}?
      | (?P<plain>{_PLAIN})
        (?:[eE](?P<exponent>[-+]?\d+)|\ ?(?:x|×|\*|·|\\times|\\cdot)\ ?10\ ?\^\ ?\{{?(?P<exponent2>-?\d+)\}}?)?
    )
    (?P<tail>.*)
    """,
    re.VERBOSE,
)
# Digits with a decimal comma, or in groups that English does not have. "1,234" and "1.234" are read as in English;
# in brackets a comma separates two numbers, and so it does before or after a third.
_CONTINENTAL = re.compile(
    r"""
    (?<![\d.,({\[])
    (?:
        (?P<groups>\d{1,3}(?:\.\d{3}){2,} | \d{1,3}(?:[. ]\d{3})+(?=,\d))
      | (?P<swiss>\d{1,3}(?:'\d{3})+(?:\.\d+)?)
      | (?P<whole>\d+(?=,(?:\d{1,2}|\d{4,})(?!\d)) | 0(?=,\d))
    )
    (?P<rest>,\d+)? (?![\d.,]*\d)
    """,
    re.VERBOSE,
)
_UNIT = re.compile(r"[A-Za-z%°¢€£₹$./ -]*(?:\^?\{?[23]\}?|[²³])?")


@dataclass(frozen=True, slots=True)
class Number:
    """`unit` is a measure ("cm", "%", "$"), the words for what was counted ("apple red"), or nothing; `places` are the
    decimals of a decimal, None for a fraction."""

    value: Fraction
    unit: str
    places: int | None

    def same(self, other: Number) -> bool:
        """Equal values in measures that do not contradict each other.

        A percentage is also the number without its sign and the hundredth part: 50% is 50 where the question asks
        for percent, and 0.5 (as in math-verify). A decimal of four or more places is a fraction rounded to it.
        """
        if not _agree(self.unit, other.unit):
            return False
        if _rounds_to(self, other) or _rounds_to(other, self):
            return True
        if "%" in (self.unit, other.unit) and self.unit != other.unit:
            percent, bare = (self, other) if self.unit == "%" else (other, self)
            return percent.value in (bare.value, 100 * bare.value)
        return self.value == other.value


def read(text: str) -> Number | None:
    """The number that `text` is: thousands, decimals, fractions, mixed numbers, powers of ten, words up to ninety-nine,
    a currency, a unit. A comma before any number of digits but three is a decimal comma; 1.500 is never 1500."""
    if len(text) > 4 * _MAX_LENGTH:
        return None
    text = _in_digits(text)
    if len(text) > _MAX_LENGTH or not any(character.isdigit() for character in text):
        return None
    text = with_decimal_point(_without_notation(text))
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    if (match := _NUMBER.fullmatch(text)) is None:
        return None
    if (behind := _unit(match["tail"], match["currency"])) is None:
        return None
    scale, unit = behind
    exponent = scale + int((match["exponent"] or match["exponent2"] or match["exponent3"] or "0")[:9])
    if abs(exponent) > _MAX_EXPONENT or (value := _value(match)) is None:
        return None
    if (match["sign"] == "-") != (match["sign2"] == "-"):
        value = -value
    places = None if match["plain"] is None else len(match["plain"].partition(".")[2]) - exponent
    return Number(value * Fraction(10) ** exponent, unit, places)


def is_measure(word: str) -> bool:
    """Whether a word behind a number is a measure or a scale: "cm", "minutes", "million"."""
    word = word.casefold().replace(" ", "")
    return word in _MEASURES or word in _SCALES


def _in_digits(text: str) -> str:
    """'twenty-one days' as '21 days', 'about 5' as '5'; any other text as it is."""
    text = _ABOUT.sub("", text.strip())
    found = _WORD.match(text)
    if found is None:
        return text
    tens, ones = _WORDS[found[1].lower()], found[2]
    if ones and tens < 20:
        return text
    return f"{tens + (_WORDS[ones.lower()] if ones else 0)}{text[found.end() :]}"


def _without_notation(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|textrm|mbox|rm)\s*\{([^{}]*)\}", r" \1 ", simple(text)).replace(" ^", "^")
    text = re.sub(r"\^\s*\{?\\circ\}?", "°", text)
    text = re.sub(r" (?:in (?:total|all|digits)|altogether)$", "", text)
    if text.count("$") > 1:  # math, not money
        text = text.replace("$", " ")
    return " ".join(text.split())


def with_decimal_point(text: str) -> str:
    """1,234.56 of "1.234,56", "1 234,56" and "1'234.56", 1000000 of "1.000.000"; what English writes too is kept."""
    match = _CONTINENTAL.search(text)
    if match is None:
        return text
    digits = re.sub(r"[.' ]", "", match["groups"] or match["swiss"] or match["whole"]) + (match["rest"] or "")
    return text[: match.start()] + digits.replace(",", ".") + text[match.end() :]


def _value(match: re.Match[str]) -> Fraction | None:
    """The number in front of sign, power of ten and unit; None for one that does not exist."""
    whole = _exact(match["whole"] or match["whole2"] or "0")
    over, under = match["over"] or match["over2"], match["under"] or match["under2"]
    if not over:
        return _exact(match["plain"] or "1")
    if _exact(under) == 0 or (whole and _exact(over) < 0):
        return None
    return whole + _exact(over) / _exact(under)


def _exact(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").replace(" ", "").rstrip(".") or "0")


def _unit(tail: str, currency: str) -> tuple[int, str] | None:
    """The power of ten and the measure after a number; None when algebra or a sentence follows."""
    if not _UNIT.fullmatch(tail):
        return None
    words = tail.casefold().replace("²", "^2").replace("³", "^3").translate({123: None, 125: None}).split()
    scale = 0
    while words and words[0] in _SCALES:
        scale += _SCALES[words.pop(0)]
    if not words:
        return scale, _MEASURES[currency] if currency else ""
    measure = _measure(words)
    # "5x", "5m" and "5 x" are products; "5cm", "5 m" and "5 apples" are not.
    glued = not tail.startswith(" ") and words[0].isalpha()
    is_unit = (len(words[0]) > 1 or not glued) if measure else (len(words[0]) > 2 and not glued)
    if not is_unit or len(words) > 6 or words[0] in _NO_UNITS:
        return None
    return scale, _MEASURES[currency] if currency else measure or _counted(words)


def _counted(words: list[str]) -> str:
    """What was counted: "apple red" of "red apples in total"."""
    nouns = {re.sub(r"(?<=[^s])s$", "", word.strip(".")) for word in words}
    return " ".join(sorted(nouns - _NO_NOUNS))


def _measure(words: list[str]) -> str | None:
    """The known measure that words name, in one spelling: "square centimeters" is cm^2, "miles per hour" mi/h."""
    if "per" in words[1:]:
        at = words.index("per")
        parts = [_measure(part) for part in (words[:at], words[at + 1 :]) if part]
        return "/".join(part for part in parts if part) if parts[0] else None
    first, *rest = words
    if rest and first in ("square", "sq", "cubic"):
        first = rest[0] + ("^3" if first == "cubic" else "^2")
    base, _, power = first.partition("^")
    name = _MEASURES.get(base.replace(".", ""))
    if name == "°" and rest:  # "degrees Celsius", "° C"
        name = {"c": "°c", "f": "°f"}.get(rest[0], _MEASURES.get(rest[0], name))
    return f"{name}^{power}" if name and power else name


def _agree(a: str, b: str) -> bool:
    """Whether two units may be of one answer: "5" and "5 dollars" leave out what "5 dollars per day" says, and
    "5 apples" what "5 red apples" says; 5 apples are not 5 pears."""
    if not a or not b or a == b or a == b.partition("/")[0] or b == a.partition("/")[0]:
        return True
    if a in _SHORTER.get(b, ()) or b in _SHORTER.get(a, ()):
        return True
    words = set(a.split()), set(b.split())
    return words[0] <= words[1] or words[1] <= words[0]


def _rounds_to(exact: Number, decimal: Number) -> bool:
    if exact.places is not None or decimal.places is None or decimal.places < 4:
        return False
    return abs(exact.value - decimal.value) * 2 <= Fraction(1, 10**decimal.places)

"""Dates and times of day as people and models write them."""

from __future__ import annotations

import re

_MAX_LENGTH = 60  # characters of "on Wednesday, the 8th of September, 1945" and the like
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_NUMBER = {name: at for at, name in enumerate(_MONTHS, 1)} | {name[:3]: at for at, name in enumerate(_MONTHS, 1)}
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)}|(?:{'|'.join(name[:3] for name in _MONTHS)}|sept)\b)\.?"
_DAY = r"(?:the )?(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,? )?(?:the )?"
_YEAR = r"(?:,? (?P<year>\d{4}))?"
# 5/8/1945 is not read: it is the 5th of August or the 8th of May.
_FORMS = tuple(
    re.compile(form)
    for form in (
        rf"{_WEEKDAY}{_MONTH} {_DAY}{_YEAR}",
        rf"{_WEEKDAY}{_DAY} (?:of )?{_MONTH}{_YEAR}",
        r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)",
    )
)
_CLOCK = re.compile(r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d)(?::00)?)? ?(?P<half>[ap]\.?m\.?)?")
_MONTH_IN = "(?:" + "|".join((*_MONTHS, *(name[:3] + r"\.?" for name in _MONTHS), r"sept\.?")) + ")"
_DAY_IN = r"\d{1,2}(?:st|nd|rd|th)?"
_IN_SENTENCE = re.compile(rf"\b(?:{_MONTH_IN} {_DAY_IN}|{_DAY_IN} (?:of )?{_MONTH_IN}),? \d{{4}}(?!\d)", re.IGNORECASE)


def read(text: str) -> tuple[int | None, ...] | None:
    """Year (None where it is left out), month and day, or hour and minute of a day: all that `text` says, or None.

    A time needs a colon or a.m. or p.m.; 12 p.m. is noon. Of 5:30 alone it is not said which half of the day it is:
    then it is the morning, as on a clock of 24 hours.
    """
    if len(text) > _MAX_LENGTH or not any(character.isdigit() for character in text):
        return None
    text = " ".join(text.casefold().split()).removeprefix("on ").removeprefix("at ")
    for form in _FORMS:
        if match := form.fullmatch(text):
            month = _NUMBER.get(match["month"][:3]) or int(match["month"])
            return (int(match["year"]) if match["year"] else None), month, int(match["day"])
    return _time(text)


def dates_in(sentence: str) -> list[str]:
    """The dates with a year in a sentence, as they stand there."""
    return _IN_SENTENCE.findall(sentence)


def _time(text: str) -> tuple[int, int] | None:
    match = _CLOCK.fullmatch(text)
    if match is None or not (match["minute"] or match["half"]):
        return None
    hour, minute = int(match["hour"]), int(match["minute"] or 0)
    if match["half"] and hour <= 12:
        hour = hour % 12 + (12 if match["half"].startswith("p") else 0)
    return hour, minute

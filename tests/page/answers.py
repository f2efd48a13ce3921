"""Answers that the mock server gives: texts as models write them, with what a page must show well."""

from __future__ import annotations

from pathlib import Path

TEXTS = Path(__file__).parent / "texts"
THOUGHT = (TEXTS / "thought.md").read_text(encoding="utf-8")
MATHS = (TEXTS / "maths.md").read_text(encoding="utf-8")
HOSTILE = (TEXTS / "hostile.md").read_text(encoding="utf-8")

LONG = "\n\n".join(
    f"Paragraph {number} says in plain words that the sea is wide, the night is calm, and the reader has time."
    for number in range(1, 40)
)
SUM = "Adding the columns from the right gives 3, 3 and 9.\n\nThe answer is \\boxed{933}."

# What each sample of a vote does: thought, answer, the counted answer, how it ends.
SAMPLES = [
    ("The ones give 13, the tens 13, the hundreds 9. So 933.", "The answer is \\boxed{933}.", "933", "stop"),
    ("7 + 6 is 13. 4 + 8 is 12. I forget the carry here. 833.", "It is \\boxed{833}.", "833", "stop"),
    ("Round up: 350 + 586 = 936, minus 3 is 933. A check says yes.", "The answer is \\boxed{933}.", "933", "stop"),
    ("347 + 600 is 947, minus 14 is 933. Good.", "So we get \\boxed{933}.", "933", "stop"),
    ("Hmm, let me think about columns. I am not sure of the carry. " * 3, "", None, "cancelled"),
    ("300 + 500 = 800, 47 + 86 = 133, together 933.", "The sum is \\boxed{933}.", "933", "stop"),
    ("Let me try it in binary, which is a detour that takes long. " * 4, "", None, "cancelled"),
    ("I do not know. " * 2, "I cannot tell.", None, "stop"),
]

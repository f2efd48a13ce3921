"""LaTeX as readable text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.ui.markdown.formulas import formula_text, with_formulas


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\frac{1}{2}", "1/2"),
        (r"3\frac{1}{2}", "3 1/2"),
        (r"\frac{1}{2}x", "(1/2)x"),
        (r"\frac{a+b}{2x}", "(a+b)/(2x)"),
        (r"\frac{\text{distance}}{\text{time}}", "distance/time"),
        (r"x^2 + y^{n+1}", "x² + yⁿ⁺¹"),
        (r"x_1 + x_{max}", "x₁ + xₘₐₓ"),
        (r"e^{i\pi} + 1 = 0", "e^(iπ) + 1 = 0"),
        (r"90^\circ", "90°"),
        (r"\sqrt{x^2+1}", "√(x²+1)"),
        (r"\sqrt2", "√2"),
        (r"\sqrt[3]{8}", "∛8"),
        (r"\boxed{\frac{3}{4}}", "[ 3/4 ]"),
        (r"x=\frac{-b\pm\sqrt{b^2-4ac}}{2a}", "x=(-b ± √(b²-4ac))/(2a)"),
        (r"\left(\frac{1}{2}\right)^2", "(1/2)²"),
        (r"\lim_{x \to 0} \frac{\sin x}{x} = 1", "lim_(x → 0) (sin x)/x = 1"),
        (r"\sum_{i=1}^{n} i", "∑ᵢ₌₁ⁿ i"),
        (r"x \in \mathbb{R}, x \leq 5", "x ∈ ℝ, x ≤ 5"),
        (r"a \equiv b \pmod{n}", "a ≡ b (mod n)"),
        (r"\begin{aligned} x &= 1 \\ y &= 2 \end{aligned}", "x = 1\ny = 2"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "[1 2; 3 4]"),
        (r"10{,}000 \times 5\%", "10,000 × 5%"),
        (r"\unknown{x} y", r"\unknown{x} y"),
        (r"\frac{1}{", "1/()"),
        ("{" * 50 + "x", "{" * 50 + "x"),
    ],
)
def test_a_formula_reads_as_text(latex: str, text: str) -> None:
    assert formula_text(latex) == text


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        (r"So \(x^2\) and $y_1$.", "So x² and y₁."),
        (r"The answer is \boxed{42}.", r"The answer is **\[ 42 \]**."),
        (r"`\frac{1}{2}` stays", r"`\frac{1}{2}` stays"),
        ("It costs $5 and $10, or 4$ each.", "It costs $5 and $10, or 4$ each."),
        ("From $5 to $ 6", "From $5 to $ 6"),
        (r"$|a*b|$ in a cell", r"\|a\*b\| in a cell"),
        ("2*3*4 and **bold**", r"2\*3\*4 and **bold**"),
        (r"never closed \( x", r"never closed \( x"),
        (r"3 \times 4", "3 × 4"),
    ],
)
def test_formulas_in_markdown_become_text_and_the_rest_stays(markdown: str, text: str) -> None:
    assert with_formulas(markdown) == text


PIECES = (
    "\\frac", "\\sqrt", "{", "}", "[", "]", "\\boxed", "\\begin", "{aligned}", "\\end", "^", "_", "\\", "\\\\", "&",
    "$", "$$", "\\[", "\\]", "\\(", "\\)", "x", "1", "`", "```", "\\left", ".", "\\text", "é", "漢", " ", "\n",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_no_text_is_an_error(text: str) -> None:
    formula_text(text)
    with_formulas(text)

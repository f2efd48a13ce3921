"""What counts as a final answer, and which answers say the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.answers import are_equal, extract, groups, is_correct, symbolic
from runtime.base.errors import Incompatible

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"The answer is \boxed{933}.", "933"),
        (r"The answer is \boxed{oolgi}.", "oolgi"),
        (r"First \boxed{1}, no: \boxed{2}.", "2"),
        (r"$$\boxed{\frac{1}{2}}$$", r"\frac{1}{2}"),
        (r"\boxed{\text{Saturday}}", "Saturday"),
        (r"\boxed{ \left( 3, \frac{\pi}{2} \right) }", r"\left( 3, \frac{\pi}{2} \right)"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\{}", r"\{"),
        (r"\fbox{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"so $\boxed 5$.", "5"),
        (r"so \boxed 5.", "5"),
        (r"\boxed{a \boxed{b}}", "b"),
        (r"\\boxed{7}", "7"),
        (r"\boxed{7} and then \boxed{8", "7"),
        (r"\boxed{7} and then \boxed{}", "7"),
        (r"\boxed{7}, as wanted: \boxed{...}", "7"),
        (r"Let {1, 2 be a set. \boxed{3}", "3"),
        ("\\boxed{3} stands above this.\nThe answer is 4.", "3"),
        (r"\boxed{" + "x" * 2000 + "}", None),
        (r"\boxed{", None),
        (r"The answer is \boxed{5", None),
        (r"\boxedness{5} is no command", None),
    ],
)
def test_the_last_box_is_the_answer(reply: str, answer: str | None) -> None:
    assert extract(reply) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("We add.\nAnswer: 42", "42"),
        ("**Answer:** 42.", "42"),
        ("**Answer: 42**", "42"),
        ("My answer: **42**.", "42"),
        ("### Final Answer\n\n42", "42"),
        ("**Final Answer**\n\n$$x = 5$$", "x = 5"),
        ("Final answer:\n\\[\n\\frac{3}{4}\n\\]", r"\frac{3}{4}"),
        ("The answer is:\n\nParis", "Paris"),
        ("The answer is 5, because 2 + 3 = 5.", "5"),
        ("The answer is 5 because 2 + 3 = 5.", "5"),
        ("The answer is 5, which is odd.", "5"),
        ("The answer is 1,000.50 dollars.", "1,000.50 dollars"),
        ("The answer is $18 per day.", "$18 per day"),
        ("The final answer is that Tom has 5 apples.", "5"),
        ("The answer to the question of today is **blue** as everybody can see now.", "blue"),
        ("the answer is $x=2$ or $x=3$", "$x=2$ or $x=3$"),
        ("The answer is 3.\nWait, no. The answer is 4.\nI checked it twice.", "4"),
        ("Answer: 3 + 4 = 7", "7"),
        ("Answer: x = 7", "x = 7"),
        ("Answer: (4 - 1) * 8 = 24", "24"),
        ("Answer: a - b", "a - b"),
        ("The answer is 7 — that is all", "7"),
        ("The answer is 5!", "5"),
        ("The answer is (B) because A is wrong", "(B)"),
        ("The answer is (B) Paris", "(B) Paris"),
        ("The answer is B. Paris is the capital.", "B"),
        ("The correct option is C", "C"),
        ("Answer: A, B and C", "A, B and C"),
        ("The answer is yes, since Tom is taller.", "yes"),
        ("The answer is Mia > Ann > Eve", "Mia > Ann > Eve"),
        ("ANSWER: Saturday", "Saturday"),
        ("She sells 9 * 2 = <<9*2=18>>18.\n#### 18", "18"),
        ("#### 1,234", "1,234"),
        ("It takes 2+1=<<2+1=3>>3 bolts of blue and white fiber\nA: 3", "3"),
        ("A: 3", "3"),
        ("Answer: Tom has 3 apples. He gets 2 more. So 5.", "5"),
        ("I don't know what the answer is. I am not sure.", None),
        ("The answer is not clear to me.", None),
        ("The answer is ...", None),
    ],
)
def test_a_statement_of_the_answer_ends_where_its_reason_begins(reply: str, answer: str | None) -> None:
    assert extract(reply) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("72", "72"),
        (" B. ", "B"),
        ("(C)", "(C)"),
        ("(B) Paris", "(B) Paris"),
        ("Yes.", "Yes"),
        ("No, he is not.", "No"),
        ("false", "false"),
        ("Saturday", "Saturday"),
        ("It is **Saturday**.", "Saturday"),
        ("New York City", "New York City"),
        ("I don't know.", None),
        ("Really?", None),
        ("", None),
        (" \n ", None),
    ],
)
def test_a_reply_that_is_little_else_is_the_answer(reply: str, answer: str | None) -> None:
    assert extract(reply) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The capital of Italy is Rome.", "Rome"),
        ("The opposite of 'hot' is 'cold.'", "cold"),
        ("The opposite of 'yes' is 'no'.", "no"),
        ('The opposite of "always" is never', "never"),
        ("A robin is a bird!", "bird"),
        ("The wives of old were the queens.", "queens"),
        ("The capital of Argentina is Buenos Aires.", "Buenos Aires"),
        ("Half of 10 is 5.", "5"),
        ("Grass is green.", "green"),
        ("1 metre is 100 centimetres.", "100 centimetres"),
        ("The ratio of 3 and 2 is 1.5.", "1.5"),
        ("Paris is the capital of France.", "Paris"),
        ("Paris of today is not Rome.", None),
        ("Paris of today isn't Rome.", None),
        ("The sky here is never green.", None),
        ("Calling it red is no mistake.", None),
        ("Neither of the two is red.", None),
        ("Half of 10 is 5 or 6.", None),
        ("La capitale de l'Italie est Rome.", "Rome"),
        ("The primes below 10 are: 2, 3, 5, and 7.", "2, 3, 5, and 7"),
        ("9.9 is larger than 9.11.", "9.9"),
        ("Hamlet was written by William Shakespeare.", "William Shakespeare"),
        ("Rome is not the capital of France.", None),
        ("The colour is red or blue.", None),
        ("The capital is Paris, not Rome.", None),
        ("The capital of Italy is Rome. It is old.", "Rome"),
        ("The month that comes after May is June.", "June"),
        ("A poem of some length that is sad.", None),
        ("There is some hope.", None),
        ("We may wonder if grass is green.", None),
        ("If Tom is tall Ann is small.", None),
        ("The capital of Italy:\nthe capital is Rome.", None),
        ("What colour of all is red?", None),
        ("I do not know what it is exactly.", None),
        ("I cannot tell which of them is right.", None),
    ],
)
def test_a_reply_of_one_sentence_says_what_something_is(reply: str, answer: str | None) -> None:
    assert extract(reply) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("He had 7 and lost 2.\nSo Tom has 5 apples.", "5"),
        ("He sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nShe makes 9 * 2 = $18 every day at the market.", "$18"),
        ("That is 3 weeks. Therefore in 7 days he makes $70.", "$70"),
        ("The rest is 5 minutes, so it takes 2 hours.", "2 hours"),
        ("So the town has 2 million people.", "2 million"),
        ("The war in Europe ended on May 8, 1945.", "May 8, 1945"),
        ("3 fois 4,5 font 13,5.", "13,5"),
        ("There are 120 minutes in 2 hours.", "120 minutes"),
        ("17\\*3 equals 51.", "51"),
        ("17 * 3 = 51\n\nThis shows the use of the product.", "51"),
        ("The answer is indeed 17 * 3, which is 51.", "51"),
        ("We solve it. Thus $x = \\frac{3}{4}$.", r"x = \frac{3}{4}"),
        ("We solve it:\n\\[ 3 + x = 8 \\]", "8"),
        ("We solve it:\n$$\nx = 5\n$$", "5"),
        ("It rains, so the match of tomorrow moves to **Sunday**.", "Sunday"),
        ("She arrives after the long journey at 10:30.", "10:30"),
        ("1. Add them.\n2. The sum of both is 12.", "12"),
        ("Both have 20 sheep + 80 sheep = <<20+80=100>>100 sheep", "100"),
        ("His profit was 975-130,000 = $<<975-130000=-129025>>-129025", "-129025"),
        ("For the twelfth glass he pays 2.5.\nFor the next one Kylar needs to pay 5 * 1", None),
        ("He pays $5 for 3 boxes.", None),
        ("What would you do with 5 apples?", None),
        ("Here is the program:\n```python\nx = 5\n```", None),
        ("Hello there! How can I help you today?", None),
        ("He won the race as the 5th of all runners.", None),
        ("**The conclusion of the whole story**", None),
        ("Each of the $n$ children gets an apple.", None),
    ],
)
def test_else_the_last_sentence_may_name_one_number(reply: str, answer: str | None) -> None:
    assert extract(reply) == answer


@given(st.text(max_size=300))
def test_any_text_is_read_without_an_error(text: str) -> None:
    answer = extract(text)
    assert answer is None or answer.strip() == answer != ""


@given(st.text(alphabet="\\{}$*# .,:;=()'\"0123456789abox\n", max_size=120))
def test_any_markup_is_read_without_an_error(text: str) -> None:
    answer = extract(text)
    assert answer is None or answer.strip() == answer != ""


@given(st.text(max_size=300), st.text("abcdefgXYZ0123456789", min_size=1, max_size=20))
def test_a_box_at_the_end_wins_over_everything_before_it(text: str, answer: str) -> None:
    assert extract(text + rf"\boxed{{{answer}}}") == answer


SAME = [
    ("1,000", "1000"),
    ("1 000", "1000"),
    ("1{,}000", "1000"),
    ("14 {, }916", "14916"),
    ("$28$ %", r"28\%"),
    ("1,000.99€", "1000.99"),
    (r"1\,000\,000", "1000000"),
    ("1,234,567.50", "1234567.5"),
    ("3/4", "0.75"),
    (r"\frac{3}{4}", "3/4"),
    (r"\dfrac{3}{4}", r"\tfrac34"),
    (r"-\frac{1}{2}", "-0.5"),
    ("1 1/2", "1.5"),
    (r"1\frac{1}{2}", "3/2"),
    ("-1 1/2", "-1.5"),
    ("2/3", "0.6667"),
    (".5", "0.50"),
    ("72.", "72"),
    ("50%", r"50\%"),
    ("50%", "50 percent"),
    ("50%", "0.5"),
    ("50%", "50"),
    ("12.5%", "1/8"),
    ("$5", "5 dollars"),
    (r"\$5", "5.00"),
    ("-$5", "$-5"),
    ("€5", "5 euros"),
    ("$18 per day", "$18"),
    ("5 cm", "5"),
    (r"5\text{ cm}", "5 cm"),
    (r"5\,\mathrm{cm}^2", "5 square centimeters"),
    ("5cm", "5 centimetres"),
    ("60 mph", "60 miles per hour"),
    ("90^\\circ", "90 degrees"),
    ("5 p.m.", "5 PM"),
    ("5 apples", "5"),
    ("5 in total", "5"),
    ("1.5 million", "1,500,000"),
    ("−5", "-5"),
    ("+5", "5"),
    ("1.5e3", "1500"),
    (r"1.5 \times 10^{3}", "1500"),
    ("1.5 x 10^-2", "0.015"),
    ("10^6", "1000000"),
    ("(B)", "B"),
    ("B.", "b"),
    ("B) foo", "(B)"),
    ("(B) foo", "B: bar"),
    ("Yes", "yes"),
    ("TRUE", "true."),
    ("'Eve'", "eve"),
    (r"\text{Saturday}", "saturday"),
    ("**Saturday**", '"Saturday."'),
    ("New  York", "new york"),
    ("A fish", "fish"),
    ("the Moon.", "moon"),
    ("A>B", "A > B"),
    ("3 : 4", "3:4"),
    ("x = 5", "5"),
    ("x = 5", "x = $5"),
    ("1.234,56", "1,234.56"),
    ("1 234,56 €", "1234.56 euros"),
    ("13,5", "13.5"),
    ("1.000.000", "1 million"),
    ("5 red apples", "5 apples in total"),
    ("100 °C", "100 degrees Celsius"),
    ("100°F", "100 degrees"),
    ("in 1969", "1969"),
    ("May 8, 1945", "on the 8th of May, 1945"),
    ("Tuesday, 8 May 1945", "1945-05-08"),
    ("12:00", "12 p.m."),
    ("red, blue, and yellow", "Red, blue, yellow"),
    (r"\left(3, 4\right)", "(3,4)"),
    (r"$\dfrac{\pi}{2}$", r"\frac{\pi}{2}"),
    ("", ""),
]
DIFFERENT = [
    ("5", "6"),
    ("5", "-5"),
    ("1,000", "1"),
    ("1,00", "100"),
    ("2/3", "0.67"),
    ("2/3", "0.6666"),
    ("0.5", "50"),
    ("50%", "5"),
    ("5 cm", "5 m"),
    ("5 cm", "5 cm^2"),
    ("5 am", "5 pm"),
    ("$5", "€5"),
    ("5 million", "5"),
    ("1/0", "0"),
    ("A", "B"),
    ("(A) foo", "(B) foo"),
    ("yes", "no"),
    ("yes", "true"),
    ("oolgi", "igloo"),
    ("bib", "ibb"),
    ("Eve", "Ann"),
    ("a b", "b"),
    ("a x", "x"),
    ("a cos x", "cos x"),
    ("A", "an"),
    ("the big end", "end"),
    ("A, B", "B, A"),
    ("(A)", "5"),
    ("5", "Eve"),
    ("", "0"),
    ("5 apples", "5 pears"),
    ("5 apples", "5 days"),
    ("100°C", "100°F"),
    ("5 lb", "£5"),
    ("1.500", "1500"),
    ("1,5", "15"),
    ("(3,4)", "3.4"),
    ("1,2,3", "1.2"),
    ("x = 5", "x = -5"),
    ("May 8, 1945", "May 7, 1945"),
    ("8 May", "8 May 1945"),
    ("12:00 AM", "12:00"),
    ("5:30 PM", "5:30"),
]


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(a: str, b: str) -> bool:
        raise AssertionError(f"{a!r} and {b!r} went to math-verify")

    monkeypatch.setattr(symbolic, "equal", refuse)


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize(("a", "b"), SAME)
def test_the_same_answer_in_other_dress(a: str, b: str) -> None:
    assert are_equal(a, b)
    assert are_equal(b, a)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_answers_that_differ(a: str, b: str) -> None:
    assert not are_equal(a, b)
    assert not are_equal(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\frac{\sqrt{3}}{2}", "sqrt(3)/2"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        ("π/2", r"0.5\pi"),
        ("x^2 + 2x + 1", "(x+1)^2"),
        ("2**3 * x", "8x"),
        ("x = 5", "5"),
        ("A > B", "B < A"),
        ("3 and 4", "4, 3"),
        (r"\{1, 2\}", r"\{2, 1\}"),
        (r"[0, \infty)", r"x \ge 0"),
        (r"5\sqrt{2}\text{ meters}", r"5\sqrt{2}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\ \frac{4}{2}\end{pmatrix}"),
        (r"\int_0^1 x^2\,dx", "1/3"),
    ],
)
def test_equal_formulas(a: str, b: str) -> None:
    assert are_equal(a, b)
    assert are_equal(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\sqrt{3}", r"\sqrt{2}"),
        ("5x", "5"),
        ("x = 5", "y = 5"),
        ("(3, 4)", "(4, 3)"),
        (r"\frac{", "1"),
        (r"\frac{}{}", r"\sqrt"),
        ("x^2\ud800", "x^2"),
    ],
)
def test_different_or_broken_formulas(a: str, b: str) -> None:
    assert not are_equal(a, b)
    assert not are_equal(b, a)


@pytest.mark.parametrize(
    "bomb",
    ["10^10^10^10", "10^{10^{10}}", r"(x+y+z+w)^{400}", r"\frac{" * 50 + "1" + "}{2}" * 50, "{" * 250, "((((" * 60],
)
def test_a_formula_without_end_is_given_up(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "_SECONDS", 0.5)
    assert not are_equal(bomb, "5x^2")
    monkeypatch.undo()
    assert are_equal("x + x", "2x")  # the child works, or works again


BIG = 10_000_000


@pytest.mark.parametrize(
    "text",
    [
        "7" * BIG,
        "\n" * BIG,
        "{" * BIG,
        r"\boxed{" * (BIG // 7),
        r"\boxed{}" * (BIG // 8),
        r"\boxed{" * 100_000 + "}" * 100_000,
        r"\text{" * 100_000 + "}" * 100_000,
        "answer " * (BIG // 7),
        "the answer is a b c d e f g\n" * (BIG // 28),
        "#" * BIG,
        "\\" * BIG,
        "$ " * (BIG // 2),
        "7," * (BIG // 2),
        "is a, b and " * (BIG // 12),
        "Aa is the " * (BIG // 10),
        "1.234." * (BIG // 6),
    ],
    ids=lambda text: text[:12],
)
def test_ten_million_characters_are_read_and_compared(text: str) -> None:
    extract(text)  # the test's own time limit is the check
    assert are_equal(text, text)
    assert not are_equal(text, text + "x")
    assert not are_equal(text[:1999], "1" + text[:1999])


ANSWERS = st.sampled_from(sorted({text for pair in SAME + DIFFERENT for text in pair}))


@given(ANSWERS | st.text(max_size=50))
def test_an_answer_equals_itself(answer: str) -> None:
    assert are_equal(answer, answer)
    assert groups([answer, None, answer]) == ((0, 2),)


@settings(deadline=None, max_examples=60)
@given(ANSWERS | st.text("0123456789 ,./%$-AB()", max_size=8), ANSWERS | st.text("0123456789 ,./%$-AB()", max_size=8))
def test_the_order_of_two_answers_does_not_matter(a: str, b: str) -> None:
    assert are_equal(a, b) == are_equal(b, a)


@given(st.integers(-(10**12), 10**12))
def test_thousands_separators_never_change_a_number(number: int) -> None:
    assert are_equal(f"{number:,}", str(number))
    assert are_equal(f"{number:,}".replace(",", "{,}"), f"${number}$")
    assert not are_equal(f"{number:,}", str(number + 1))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], ()),
        ([None, None], ()),
        (["5", "6", None, "5.0", "five", "$6"], ((0, 3, 4), (1, 5))),
        (["Eve", "eve", "Ann"], ((0, 1), (2,))),
        # Not transitive: the first member decides.
        (["50%", "50", "0.5"], ((0, 1, 2),)),
        (["50", "50%", "0.5"], ((0, 1), (2,))),
        # What equals several joins the largest, what equals most of a group joins it, in any order.
        (["50", "50%", "0.5", "1/2", "1/2"], ((0, 1), (2, 3, 4))),
        (["50", "0.5", "1/2", "50%"], ((0,), (1, 2, 3))),
        (["50", "50%", "50 %", "0.5"], ((0, 1, 2, 3),)),
        (["0.5", "50 %", "50%", "50"], ((0, 1, 2, 3),)),
    ],
)
def test_equal_answers_are_grouped_in_order_of_appearance(
    answers: list[str | None], expected: tuple[tuple[int, ...], ...]
) -> None:
    assert groups(answers) == expected


@pytest.mark.parametrize(
    ("found", "wanted", "correct"),
    [
        (None, "5", False),
        (None, "", False),
        ("A", "(A)", True),
        ("B", "(A)", False),
        ("1,000", "1000", True),
        ("72", "#### 72", True),
        ("$1,800", "He earns 2 * 900 = <<2*900=1800>>1800.\n#### 1800", True),
        ("71", "#### 72", False),
        ("3/4", r"We see that it is $\boxed{\frac{3}{4}}$.", True),
        ("933", "933", True),
        ("Oolgi", "oolgi", True),
        ("saturday", "Saturday", True),
        ("True", "true", True),
        ("Mia", "Mia", True),
    ],
)
def test_a_found_answer_is_held_against_the_key(found: str | None, wanted: str, correct: bool) -> None:
    assert is_correct(found, wanted) is correct


def test_formulas_are_compared_in_any_thread() -> None:
    pairs = [(f"{n} + x", f"x + {n}") for n in range(4)] + [(f"{n} + x", f"x - {n}") for n in range(1, 5)]
    results: dict[tuple[str, str], bool] = {}
    threads = [threading.Thread(target=lambda p=pair: results.__setitem__(p, are_equal(*p))) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[pair] for pair in pairs] == [True] * 4 + [False] * 4


def test_a_child_that_died_between_two_questions_is_replaced() -> None:
    assert are_equal("x + 11", "11 + x")
    child = symbolic._checker._child
    assert child is not None
    child.kill()
    child.wait()
    assert are_equal("x + 12", "12 + x")


def test_an_interrupted_question_does_not_answer_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert are_equal("x + 21", "21 + x")

    def interrupted(child: object, question: str | None) -> str:
        exchange(symbolic._checker._child, question)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    exchange = symbolic._exchange
    monkeypatch.setattr(symbolic, "_exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        are_equal("x + 22", "22 + x")
    monkeypatch.undo()
    assert not are_equal("x + 23", "24 + x")
    assert are_equal("x + 22", "22 + x")


@pytest.mark.skipif(shutil.which("false") is None, reason="needs a program that fails")
def test_a_missing_math_verify_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    symbolic._checker.stop()
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(Incompatible, match="math-verify"):
        are_equal("x + 31", "31 + x")
    monkeypatch.undo()
    assert are_equal("x + 31", "31 + x")


def test_numbers_and_words_need_no_math_verify_and_it_never_enters_this_process() -> None:
    code = (
        "import sys\n"
        "from runtime import answers\n"
        "answers.groups(['5', '5.0', 'Eve', '(A)', '50%', '3/4'])\n"
        "assert answers.symbolic._checker._child is None\n"
        "assert answers.are_equal('x + x', '2x')\n"
        "assert not {'math_verify', 'sympy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

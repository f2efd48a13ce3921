"""Answers that the mock server gives: texts as models write them, with what a page must show well."""

from __future__ import annotations

THOUGHT = """The sum has two parts, so I add them one after the other.

First the ones: $7 + 6 = 13$, so I write 3 and carry 1.
Then the tens: $4 + 8 + 1 = 13$, so I write 3 and carry 1.
Then the hundreds: $3 + 5 + 1 = 9$. Together that is 933.

Let me check with a subtraction: $933 - 586 = 347$. That is right.
"""

MATHS = r"""## Why the harmonic series diverges

The series is the sum of all **unit fractions**:

\[
H = \sum_{n=1}^{\infty} \frac{1}{n} = 1 + \frac12 + \frac13 + \frac14 + \cdots
\]

Group the terms in blocks whose length doubles. Each block \(B_k\) has \(2^{k-1}\) terms, and every term is at least \(2^{-k}\):

1. The block $\frac13 + \frac14$ is at least $2 \cdot \frac14 = \frac12$.
2. The block $\frac15 + \dots + \frac18$ is at least $4 \cdot \frac18 = \frac12$.
3. In general,
   $$B_k \ge 2^{k-1} \cdot 2^{-k} = \frac12.$$

So the partial sums grow by at least one half *for ever*. They grow slowly, as this table shows:

| terms | partial sum | logarithm |
|------:|------------:|:---------:|
| 10 | 2.929 | 2.303 |
| 1,000 | 7.485 | 6.908 |
| 1,000,000 | 14.393 | 13.816 |

A few lines of Python check it:

```python
def harmonic(terms: int) -> float:
    # The small terms come first: that loses fewer digits.
    return sum(1 / n for n in range(terms, 0, -1))


for terms in (10, 1_000, 1_000_000):
    print(f"{terms:>9,} {harmonic(terms):.3f}")
```

> The difference to $\ln n$ tends to Euler's constant, $\gamma \approx 0.5772$.

Read more at [Wikipedia](https://en.wikipedia.org/wiki/Harmonic_series_(mathematics)). The price of a book stays $5, and of two $10.

The answer: the series **diverges**, so \boxed{H = \infty}.
"""

HOSTILE = """Look: <img src=x onerror="document.title='owned'"> <script>document.title='owned'</script>

![a picture](https://example.com/track.png) and [a link](javascript:document.title='owned') and [this server](/api/dsr/models).

[a good link](https://example.com/) $\\href{javascript:alert(1)}{x}$ $\\color{red}{y}$ $\\pmb{z}$ $\\fcolorbox{red}{white}{w}$

<style>body{display:none}</style> <iframe src="https://example.com"></iframe> <div style="position:fixed">over</div>
"""

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

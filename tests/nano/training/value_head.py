"""Trains a value head for the embedded model from its own samples: is the answer of this beginning going to be right?

    python tests/nano/training/value_head.py [--problems 1000] [--samples 4] [--out tests/nano/value_head.safetensors]

The problems are those of training: none is in the suites, because `generator.problem` holds these out. At temperature 1
each is answered `--samples` times, and the hidden state at the end of every block of `--block` tokens, and at the end of
the sample, is a row; its label is whether the answer came out right. The head is a logistic regression of these rows
(Newton's method), regularised as suits the fifth of the problems that is left out best, then fitted to all. The same
seed, model, threads and slots give the same file. Run it again after nano was trained: the file's metadata names the
model. Takes some minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import generator  # type: ignore[import-not-found]  # noqa: E402

from dsr.loading.load import LoadedModel, load  # noqa: E402
from dsr.loading.options import LoadOptions  # noqa: E402
from dsr.models import library  # noqa: E402
from runtime import answers  # noqa: E402
from runtime.base.events import value_of  # noqa: E402
from runtime.base.run import Run  # noqa: E402
from runtime.base.types import Message, SamplingParams  # noqa: E402
from runtime.engine.engine import Engine  # noqa: E402
from runtime.engine.hidden_states import hidden_states  # noqa: E402

Rows = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "nano" / "value_head.safetensors")
    given = parser.parse_args()
    model = library.find(given.model)
    rng = random.Random(given.seed)
    problems = [
        generator.problem(rng, generator.TASKS[number % len(generator.TASKS)], rng.randint(1, 3))
        for number in range(given.problems)
    ]
    params = SamplingParams(temperature=1.0, max_tokens=300, seed=given.seed)
    states, labels, groups, ends = [], [], [], []
    with load(model, LoadOptions(slots=8).for_samples(8, 300), Run(threads=given.threads)) as loaded:
        for at in range(0, len(problems), 2):
            for number, found in traces(loaded, problems[at : at + 2], params, given.samples, at, given.block):
                right, rows = found
                states += rows
                labels += [float(right)] * len(rows)
                groups += [at + number] * len(rows)
                ends += [False] * (len(rows) - 1) + [True]
            if at % 100 == 0:
                print(f"{at} of {len(problems)} problems, {len(states)} rows", file=sys.stderr)
    weights, figures = trained(np.array(states), np.array(labels), np.array(groups), np.array(ends))
    digest = hashlib.sha256(model.path.read_bytes()).hexdigest()
    write(given.out, weights, {"model": digest, "figures": json.dumps(figures)})
    print(json.dumps({"out": str(given.out), **figures}))


def trained(inputs: Rows, targets: Rows, problems: Rows, last: Rows) -> tuple[Rows, dict[str, float]]:
    """The weights, and figures of the problems that are left out. `last`: the rows at the end of a sample."""
    tested = problems // len(generator.TASKS) % 5 == 4  # the kinds of problems take turns
    best = min(
        ((log_loss(fit(inputs[~tested], targets[~tested], strength), inputs[tested], targets[tested]), strength)
         for strength in (10.0, 100.0, 1000.0))
    )[1]  # fmt: skip
    trial = fit(inputs[~tested], targets[~tested], best)
    mean = constant(targets[~tested], inputs.shape[1])
    inside = [tested & last & (problems == each) for each in np.unique(problems[tested])]
    pairs = [(area(trial, inputs[rows], targets[rows]), targets[rows].sum() * (1 - targets[rows]).sum())
             for rows in inside]  # fmt: skip
    figures = {
        "rows": len(targets),
        "right": float(targets[last].mean()),
        "strength": best,
        "log_loss": log_loss(trial, inputs[tested], targets[tested]),
        "log_loss_of_the_mean": log_loss(mean, inputs[tested], targets[tested]),
        "area": area(trial, inputs[tested], targets[tested]),
        "area_at_the_end": area(trial, inputs[tested & last], targets[tested & last]),
        "area_at_the_end_within_problems": float(sum(a * n for a, n in pairs) / max(sum(n for _, n in pairs), 1)),
        "pairs_within_problems": float(sum(n for _, n in pairs)),
    }
    return fit(inputs, targets, best), {name: round(value, 4) for name, value in figures.items()}


def traces(
    loaded: LoadedModel, problems: list[dict[str, str]], params: SamplingParams, samples: int, first: int, block: int
) -> list[tuple[int, tuple[bool, list[tuple[float, ...]]]]]:
    """For each sample the number of its problem, whether it is right, and its hidden states."""
    engine = Engine(loaded.backend)
    prompts = [loaded.prompt([Message("user", each["question"])]) for each in problems]
    asked = []
    for number, prompt in enumerate(prompts):
        request = loaded.request([Message("user", problems[number]["question"])], params)
        asked += [
            replace(request, prompt=prompt, sample=(first + number) * samples + sample, keep_reply=True)
            for sample in range(samples)
        ]
    drawn = engine.generate(asked)
    found = []
    for request, sample in zip(asked, drawn, strict=True):
        number = request.sample // samples - first
        said = answers.extract(sample.answer)
        right = answers.is_correct(said, problems[number]["answer"])
        lengths = sorted({*range(block, len(sample.tokens), block), len(sample.tokens)})
        texts = [(*prompts[number].tokens, *sample.tokens[:length]) for length in lengths]
        found.append((number, (right, value_of(hidden_states(engine, texts)))))
    return found


def fit(inputs: Rows, targets: Rows, strength: float) -> Rows:
    """Weights of a logistic regression, the last one the bias. `strength` is that of the penalty on the weights of
    inputs with a deviation of 1."""
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + 1e-9
    rows = np.column_stack(((inputs - mean) / deviation, np.ones(len(inputs))))
    penalty = np.append(np.full(inputs.shape[1], strength), 0.0)
    weights = np.zeros(rows.shape[1])
    for _ in range(25):
        chances = 1 / (1 + np.exp(-(rows @ weights)))
        slope = rows.T @ (chances - targets) + penalty * weights
        curve = (rows * (chances * (1 - chances))[:, None]).T @ rows + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curve, slope)
        weights -= step
        if np.abs(step).max() < 1e-6:
            break
    of_inputs = weights[:-1] / deviation
    return np.append(of_inputs, weights[-1] - of_inputs @ mean)


def constant(targets: Rows, width: int) -> Rows:
    mean = float(targets.mean())
    return np.append(np.zeros(width), np.log(mean / (1 - mean)))


def logits(weights: Rows, inputs: Rows) -> Rows:
    found: Rows = inputs @ weights[:-1] + weights[-1]
    return found


def log_loss(weights: Rows, inputs: Rows, targets: Rows) -> float:
    """The mean of -log p of the labels, in nats."""
    scores = logits(weights, inputs)
    return float(np.mean(np.logaddexp(0, scores) - targets * scores))


def area(weights: Rows, inputs: Rows, targets: Rows) -> float:
    """The chance that a right one has a higher value than a wrong one: the area under the ROC curve."""
    scores = logits(weights, inputs)
    ranks = scores.argsort().argsort() + 1
    right = int(targets.sum())
    wrong = len(targets) - right
    return float((ranks[targets == 1].sum() - right * (right + 1) / 2) / max(right * wrong, 1))


def write(path: Path, weights: Rows, metadata: dict[str, str]) -> None:
    """A safetensors file with `score.weight` [1, hidden size] and `score.bias` [1], as float32."""
    data = weights.astype("<f4").tobytes()
    size = len(data) - 4
    header = {
        "__metadata__": metadata,
        "score.weight": {"dtype": "F32", "shape": [1, len(weights) - 1], "data_offsets": [0, size]},
        "score.bias": {"dtype": "F32", "shape": [1], "data_offsets": [size, size + 4]},
    }
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 8)
    path.write_bytes(len(said).to_bytes(8, "little") + said + data)


if __name__ == "__main__":
    main()

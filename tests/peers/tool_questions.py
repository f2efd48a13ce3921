"""How many of twenty questions a served model answers with the right call of two tools.

python tests/peers/tool_questions.py http://127.0.0.1:11500/v1 MODEL [--choice required] [--temperature 0.7]
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from openai import OpenAI

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Name of the city"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city"],
}
FACTORS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
TOOLS = [
    {"name": "get_weather", "description": "Get the current weather of a city", "parameters": WEATHER},
    {"name": "multiply", "description": "Multiply two integers", "parameters": FACTORS},
]
CITIES = ("Oslo", "Paris", "Tokyo", "Lima", "Cairo", "Berlin", "Madrid", "Rome")
PAIRS = ((12, 34), (7, 8), (123, 456), (99, 99), (15, 15), (1000, 3), (-4, 25), (31, 17), (2, 2))
QUESTIONS: list[tuple[str, str, dict[str, Any]]] = [
    *((f"What is the weather in {city}?", "get_weather", {"city": city}) for city in CITIES),
    ("How warm is it in Boston, in fahrenheit?", "get_weather", {"city": "Boston", "unit": "fahrenheit"}),
    ("Is it raining in Dublin right now?", "get_weather", {"city": "Dublin"}),
    *((f"What is {a} times {b}? Use the tool.", "multiply", {"a": a, "b": b}) for a, b in PAIRS),
    ("Multiply 19 by 21.", "multiply", {"a": 19, "b": 21}),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--choice", choices=("auto", "required"), default="auto")
    parser.add_argument("--temperature", type=float, default=0.0)
    given = parser.parse_args()
    client = OpenAI(base_url=given.url, api_key="none", timeout=600)
    called = right = 0
    for question, name, expected in QUESTIONS:
        answer = client.chat.completions.create(
            model=given.model,
            messages=[{"role": "user", "content": question}],
            tools=[{"type": "function", "function": each} for each in TOOLS],  # type: ignore[typeddict-item]
            tool_choice=given.choice,
            temperature=given.temperature,
            seed=1,
            max_tokens=200,
        )
        message = answer.choices[0].message
        first = next((call.function for call in message.tool_calls or () if call.type == "function"), None)
        is_right = first is not None and first.name == name and expected.items() <= json.loads(first.arguments).items()
        called += first is not None
        right += is_right
        said = repr(message.content)[:100] if first is None else f"{first.name} {first.arguments}"
        print("right" if is_right else "WRONG", question, said)
    print(f"{given.choice}, temperature {given.temperature:g}: {called} calls, {right} of {len(QUESTIONS)} right")


if __name__ == "__main__":
    main()

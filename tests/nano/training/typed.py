"""What a person types first: short sums in everyday forms, and small talk.

    python typed.py --seed 1 --n 20        # print twenty rows

The ten families of generator.py stay as they are; train.py mixes these rows in with --typed.  A sum of one-digit
numbers is a fact; anything longer is worked out in the families' own way.  As there, a question whose crc32 is
0 mod 16 is never trained on.  Small talk is no problem of an evaluation: all of it is trained on.
"""
import argparse
import json
import random

import generator as G

TALK = 0.2                                                    # share of small talk in the typed rows
DIRECT = 0.15                                                 # as in generator.conversation()

# {e}: the expression; {a}, {b}: its numbers
ASK = ["{e}", "{e}", "{e}", "{e}?", "{e}=", "{e} =", "{e}=?", "{e} = ?", "what is {e}", "what is {e}?", "What is {e}?", "what's {e}",
       "what's {e}?", "What's {e}?", "whats {e}", "whats {e}?", "how much is {e}", "how much is {e}?", "How much is {e}?",
       "calculate {e}", "Calculate {e}.", "compute {e}", "Compute {e}", "solve {e}", "can you calculate {e}?", "can you do {e}?",
       "tell me {e}", "and {e}?", "please calculate {e}", "What does {e} equal?", "{e} equals", "{e} equals?"]
SIGNS = {"+": ["{a}+{b}", "{a}+{b}", "{a} + {b}", "{a} + {b}", "{a} plus {b}"],
         "-": ["{a}-{b}", "{a}-{b}", "{a} - {b}", "{a} - {b}", "{a} minus {b}"],
         "*": ["{a}*{b}", "{a}*{b}", "{a} * {b}", "{a}x{b}", "{a} x {b}", "{a}×{b}", "{a} × {b}", "{a} times {b}", "{a} times {b}",
               "{a} multiplied by {b}"],
         "/": ["{a}/{b}", "{a}/{b}", "{a} / {b}", "{a}:{b}", "{a}÷{b}", "{a} ÷ {b}", "{a} divided by {b}", "{a} divided by {b}"]}
SAID = {"+": ["add {a} and {b}", "sum of {a} and {b}", "what is the sum of {a} and {b}?", "add {a} to {b}"],
        "-": ["subtract {b} from {a}", "take {b} from {a}", "difference of {a} and {b}", "what is {b} less than {a}?"],
        "*": ["multiply {a} by {b}", "multiply {a} and {b}", "product of {a} and {b}", "what is the product of {a} and {b}?"],
        "/": ["divide {a} by {b}", "what is {a} over {b}?"]}
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()


# ---------------------------------------------------------------- sums
def ordered(rng, a, b):
    return (a, b) if rng.random() < 0.5 else (b, a)


def operands(rng, op):
    """Two numbers: most often of one digit, then of one and two, of two, of three digits."""
    u = rng.random()
    if op == "/":
        most = 12 if u < 0.4 else 10
        b, q = rng.randint(1, most), rng.randint(1, most)
        if 0.4 < u < 0.43:
            b, q = rng.choice([2, 4, 5]), rng.randint(11, 25)
        return (b * q + (rng.randrange(b) if u > 0.85 else 0)), (0 if u > 0.98 else b)
    one, two, three = rng.randint(0, 9), rng.randint(10, 99), rng.randint(100, 999)
    if u < 0.5:
        a, b = one, rng.randint(0, 9)
    elif u < 0.8:
        a, b = ordered(rng, rng.choice([two, two, two, 10, rng.randint(10, 20)]), one)
    elif u < 0.95 or op == "*":
        a, b = two, rng.choice([rng.randint(10, 99), 10, rng.randint(10, 20)])
    else:
        a, b = ordered(rng, three, rng.choice([rng.randint(100, 999), two, one]))
    if op == "-" and rng.random() < 0.85:
        a, b = max(a, b), min(a, b)
    return a, b


def split(*numbers):
    return [f"{n} is {G.places(n)}" for n in numbers]


def times(rng, a, b):
    """Trace of a product with a number of two digits, as in generator.gen_multiply()."""
    a, b = max(a, b), min(a, b)
    t = [rng.choice(["Multiply digit by digit.", "Let me multiply digit by digit."])]
    if b < 10:
        return t + split(a) + G.mul_columns(rng, a, b)
    tens, ones = b // 10, b % 10
    x, y = a * ones, a * tens * 10
    return (t + [",".join(split(a, b)), f"{a}*{ones}:"] + G.mul_columns(rng, a, ones) + [f"{a}*{tens}:"]
            + G.mul_columns(rng, a, tens) + [f"sum {x}+{y}:"] + split(x, y) + G.add_columns(rng, x, y))


def divided(a, b):
    """Trace and result of a division: take away until less is left, and count."""
    if b == 0:
        return ["Nothing can be divided by 0."], "undefined"
    q, r = divmod(a, b)
    steps = [f"{i + 1}:{a - i * b}-{b}={a - i * b - b}" for i in range(q)]
    t = ["Take away and count."] + ([",".join(steps)] if q else [])
    if r:
        t.append(f"{r} is less than {b}")
    result = f"{q} remainder {r}" if r else str(q)
    return t + [f"{a}/{b}={result}"], result


def worked(rng, op, a, b):
    """Lines of thought and the result."""
    if op == "/":
        return divided(a, b)
    r = {"+": a + b, "-": a - b, "*": a * b}[op]
    if max(a, b) < 10:
        if r < 0:
            return ["The other way round.", f"{b}-{a}={-r}", f"{a}-{b}={r}"], str(r)
        return ["A fact I know.", f"{a}{op}{b}={r}"], str(r)
    if op == "+":
        t = [rng.choice(["Add by columns.", "Let me add column by column."])] + split(a, b) + G.add_columns(rng, a, b)
    elif op == "*":
        t = times(rng, a, b)
    elif r < 0:
        t = ["The other way round."] + split(b, a) + G.sub_columns(rng, b, a) + [f"{a}-{b}={r}"]
    else:
        t = [rng.choice(["Subtract by columns.", "Let me subtract column by column."])] + split(a, b) + G.sub_columns(rng, a, b)
    return t, str(r)


def three(rng):
    """A sum or product chain of three digits."""
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    e = rng.choice(["{a}+{b}+{c}", "{a} + {b} + {c}", "{a} plus {b} plus {c}"]).format(a=a, b=b, c=c)
    return "addsub", rng.choice(ASK).format(e=e), ["From the left.", f"{a}+{b}={a + b}", f"{a + b}+{c}={a + b + c}"], str(a + b + c)


def one_sum(rng):
    if rng.random() < 0.05:
        return three(rng)
    op = rng.choices("+-*/", [30, 22, 28, 20])[0]
    a, b = operands(rng, op)
    lines, result = worked(rng, op, a, b)
    x, y = str(a), str(b)
    if max(a, b) <= 12 and rng.random() < 0.08:
        x, y = NUMBERS[a], NUMBERS[b]
        lines = [f"{x} is {a},{y} is {b}"] + lines
        q = rng.choice(ASK).format(e=SIGNS[op][-1].format(a=x, b=y))
    elif rng.random() < 0.12:
        q = rng.choice(SAID[op]).format(a=x, b=y)
    else:
        q = rng.choice(ASK).format(e=rng.choice(SIGNS[op]).format(a=x, b=y))
    return "addsub" if op in "+-" else "multiply", q, lines, result


def typed_sum(rng):
    """A row like generator.problem()."""
    while True:
        task, q, lines, result = one_sum(rng)
        if rng.random() < 0.1:
            q = q[0].upper() + q[1:]
        if not G.reserved(q):
            return {"task": task, "level": 0, "question": q, "think": "\n".join(lines), "answer": result,
                    "reply": f"The answer is \\boxed{{{result}}}."}


# ---------------------------------------------------------------- small talk
NOT_MADE = "I was not made for this: I am a very small model for sums, words, weekdays, patterns and logic."
TALKS = [
    (12, ["hi", "hello", "hey", "hi there", "hello there", "hey there", "good morning", "good evening", "good afternoon", "hallo",
          "hi nano", "hello nano", "yo", "howdy", "greetings", "hola", "hello world", "hello, world", "hiya", "hey nano"],
     "A greeting, no problem to solve.", "Hello! I am nano, a very small model: give me a sum, a word, a weekday or a logic puzzle."),
    (5, ["how are you", "how are you doing", "hi, how are you", "hello, how are you", "how's it going", "what's up", "sup",
         "are you ok", "how do you do", "how are you today"],
     "They ask how I am.", "I am fine, thank you: give me a sum, a word, a weekday or a logic puzzle."),
    (10, ["who are you", "what are you", "what is your name", "what's your name", "whats your name", "are you an ai", "are you a bot",
          "who made you", "what model are you", "which model are you", "what model is this", "are you chatgpt", "are you deepseek",
          "are you human", "introduce yourself", "tell me about yourself", "who am i talking to", "what is nano", "what is this",
          "who created you", "are you gpt", "are you real", "what llm are you", "your name"],
     "They ask who I am.", "I am nano, a very small model that comes with dsr to try it: I think first, then I answer."),
    (10, ["what can you do", "help", "how can you help me", "what are you good at", "what should i ask you", "what can i ask you",
          "what do you do", "can you help me", "help me", "what can you do for me", "what are your capabilities", "what do you know",
          "how do you work", "what are you made for", "how does this work", "how to use this", "usage", "commands", "i need help",
          "what can i do here", "what can you solve", "?"],
     "They ask what I can do.", "I solve sums, words, weekdays, number patterns and simple logic puzzles, step by step."),
    (6, ["thanks", "thank you", "thx", "great, thanks", "well done", "thank you very much", "thanks a lot", "good job", "great",
         "nice", "cool", "awesome", "good", "thanks nano", "ty", "perfect", "wow", "good bot", "you are great", "i love you"],
     "They thank me.", "You are welcome! Send me another puzzle."),
    (4, ["bye", "goodbye", "see you", "good night", "bye bye", "see you later", "quit", "exit", "ciao", "stop"],
     "They say goodbye.", "Goodbye!"),
    (4, ["test", "testing", "ok", "okay", "yes", "no", "hm", "hmm", "this is a test", "just a test", "try", "go", "start", "lol",
         "asdf", "foo", "what", "why", "really", "sure", "abc", "ping", "hello?", "can you hear me"],
     "No problem to solve yet.", "I am ready: give me a sum, a word, a weekday or a logic puzzle."),
]
# Everything else, from templates: no list of it can be complete.
ELSE = ["why is the {t} {adj}", "why is {t} {adj}", "why are {t}s {adj}", "tell me a joke", "tell me a joke about {t}", "tell me another joke",
        "write a poem", "write a poem about {t}", "write me a poem", "write a haiku about the {t}", "tell me a story",
        "tell me a story about a {t}", "what is the capital of {c}", "capital of {c}", "what's the capital of {c}",
        "where is {c}", "who is the president of {c}", "how many people live in {c}", "what is a {t}", "what is {t}", "explain {x}",
        "explain {x} to me", "explain {x} in simple terms", "what is {x}", "how does {x} work", "tell me about {x}", "tell me about {c}",
        "who is {p}", "who was {p}", "when was {p} born", "who invented the {t}", "who wrote {w}", "write a song about {t}",
        "write a python program", "write code for {x}", "write a function in {l}", "write hello world in {l}", "how do i install {l}",
        "what is {l}", "translate {t} to {g}", "translate this to {g}", "say hello in {g}", "how do you say {t} in {g}", "do you speak {g}",
        "what is the weather like", "what's the weather today", "how is the weather in {c}", "what is the meaning of life",
        "what is love", "who won the game", "give me a recipe", "give me a recipe for {t}", "how do i cook {t}", "what time is it",
        "what is the time", "what's the date", "summarize this", "summarize {w}", "write an email", "write an essay about {x}",
        "give me advice", "what should i eat", "recommend a book", "recommend a movie", "what is the news", "sing a song",
        "tell me something interesting", "tell me a fun fact", "give me a fun fact about {t}", "how far is the {t}",
        "how big is the {t}", "how old is the {t}", "how tall is {p}", "what color is the {t}", "is the {t} {adj}", "do you like {t}",
        "can you write code", "can you write a poem", "can you speak {g}", "are you smarter than {p}", "let's play a game",
        "i am sad", "i am bored", "i have a question", "what do you think about {x}", "compare {c} and {d}", "list five {t}s",
        "name three {t}s", "make a plan for {x}", "fix my code", "how do i learn {l}", "what is the best {t}", "do you have feelings",
        "when did the war end", "what happened in 1969", "how many planets are there", "how to make money", "plan a trip to {c}"]
FILL = {
    "t": "sky sea moon sun star cat dog horse tree river mountain ocean grass snow rain wind bird fish car plane train ship computer phone "
         "house apple banana bread cheese coffee tea pizza pasta soup cake flower rose forest desert volcano planet rocket robot "
         "guitar piano book movie city village king queen dragon wizard strawberry".split(),
    "adj": "blue green red white black cold hot big small salty wet round beautiful sad fast slow dark bright deep".split(),
    "c": "France Germany Spain Italy Japan China India Brazil Canada Mexico Egypt Kenya Norway Sweden Poland Greece Turkey Peru Chile "
         "Australia Austria Portugal Russia England Ireland America Paris London Berlin Rome Tokyo".split(),
    "x": ["gravity", "relativity", "quantum computing", "photosynthesis", "the internet", "machine learning", "a black hole", "history",
          "evolution", "inflation", "electricity", "democracy", "the moon landing", "music theory", "a neural network", "transformers",
          "climate change", "art", "chess", "football", "dna", "the stock market", "a binary search", "sorting", "philosophy"],
    "p": ["Einstein", "Newton", "Shakespeare", "Mozart", "Napoleon", "Obama", "Picasso", "Plato", "Darwin", "Messi", "Turing", "Caesar",
          "Elon Musk", "Marie Curie", "the Eiffel tower", "Taylor Swift"],
    "w": ["Hamlet", "Faust", "Moby Dick", "War and Peace", "the Odyssey", "Dracula", "1984", "the Hobbit"],
    "l": ["python", "Python", "java", "rust", "C", "javascript", "go", "linux", "bash", "sql"],
    "g": ["French", "German", "Spanish", "Italian", "Japanese", "Chinese", "Latin", "english", "german", "french", "spanish"],
}
FILL["d"] = FILL["c"]


def dressed(rng, q, ask=True):
    """The same words with other capitals and marks."""
    u = rng.random()
    if u < 0.4:
        q = q[0].upper() + q[1:]
    elif u < 0.45:
        q = q.upper()
    if not q.endswith("?"):
        q += rng.choice(["", "", "", "?", "?", "!", "."] if ask else ["", "", "", "!", "."])
    return q


def small_talk(rng):
    if rng.random() < 0.5:
        q = rng.choice(ELSE).format(**{k: rng.choice(v) for k, v in FILL.items()})
        think, reply = "This is not one of my puzzles.", NOT_MADE
        if rng.random() < 0.1:
            q = rng.choice(["please ", "hi, ", "can you ", "hey, "]) + q
    else:
        _, qs, think, reply = rng.choices(TALKS, [t[0] for t in TALKS])[0]
        q = rng.choice(qs)
    return {"task": "chat", "level": 0, "question": dressed(rng, q), "think": think, "answer": None, "reply": reply}


def row(rng):
    return small_talk(rng) if rng.random() < TALK else typed_sum(rng)


def conversation(rng, share):
    """generator.conversation(), a `share` of it replaced by typed rows, and all its small talk by this module's."""
    c = G.conversation(rng)
    if rng.random() < share:
        history = []
        if rng.random() < 0.08:
            h = row(rng) if rng.random() < 0.7 else G.problem(rng, level=1)
            history = [(h["question"], h["reply"])]
        return {"history": history, "direct": rng.random() < DIRECT, **row(rng)}
    return {**c, **small_talk(rng)} if c["task"] == "chat" else c


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--n", type=int, default=20)
    a = ap.parse_args()
    rng = random.Random(a.seed)
    for _ in range(a.n):
        print(json.dumps(row(rng), ensure_ascii=False))


if __name__ == "__main__":
    main()

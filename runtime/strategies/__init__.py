"""How to spend more computation on one question. Each strategy is one module; `strategy.STRATEGIES` lists them.

A strategy is a generator: `run(task, settings)` draws samples from the engine, yields the events, and returns its
`Verdict`. Where the decision depends on the samples alone, the module has it as `judge(samples, settings)`, so that the
same samples can be judged in several ways.
"""

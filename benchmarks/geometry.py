"""Does MiniLM rank groups as the policy's own states do, and what does each cost?

Method: PROMPTS prompts of a task, G responses each at temperature 1. Of the same responses each signal that takes
embeddings or points is computed twice: from the policy's last states (mean over the tokens of a response, or of a
step) and from a sentence-transformers model. Reported: Spearman correlation of the two over groups with its 95 %
bootstrap interval over groups; how often a response is a duplicate; seconds of CPU a group (one thread) for sampling,
for a forward pass of the policy that takes its states, for embedding, and for a forward and backward pass of training.

A step is what training takes for a group: sampling, embedding, training. States of the policy's own sampling need no
pass of their own (``gcpo_embedder=policy`` keeps them); a pass is what they cost where another engine samples.
TOGETHER groups are sampled at once; training is timed on one group.

    python benchmarks/geometry.py --model smollm2 --data gsm8k.jsonl  ->  benchmarks/results/geometry.json
"""

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gcpo import recipe
from gcpo.experiment.settings import TaskSettings
from gcpo.experiment.subject import build_task, draw, load_policy
from gcpo.integrations.steering import measure_texts
from gcpo.policies.sampling import Sampled, posed, sample
from gcpo.probe.tracking import Bootstrap, tracking_table
from gcpo.semantics import text_embedder
from gcpo.semantics.policy import Measure, backbone_of
from gcpo.signals import SIGNALS

G, POINTS, TOGETHER, RESAMPLES = 8, 8, 4, 2000
GEOMETRY = ("embeddings", "points", "point_mask")


class Clock:
    """CPU seconds by what they were spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def __call__(self, what: str, function: Callable[[], Any]) -> Any:
        """The function's result."""
        started = time.process_time()
        result = function()
        self.spent[what] = self.spent.get(what, 0.0) + time.process_time() - started
        return result


def geometric() -> list[str]:
    """Signals that take nothing but embeddings or points."""
    return [name for name, signal in SIGNALS.items() if signal.needs and set(signal.needs) <= set(GEOMETRY)]


def signals_of(inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Each geometric signal, (B,)."""
    inputs = {name: value.float().unflatten(0, (-1, G)) for name, value in inputs.items()}
    if "point_mask" in inputs:
        inputs["point_mask"] = inputs["point_mask"].bool()
    rewards = torch.zeros(inputs["embeddings"].shape[:2])
    found = recipe("grpo")(rewards, **inputs, also=geometric()).signals
    return {name: found[name].double().numpy() for name in geometric()}


def train_once(model: Any, said: Sampled) -> None:
    """The forward and backward pass of a step on the first group."""
    ids = torch.cat([said.prompt_ids, said.ids], dim=1)[:G]
    attention = torch.cat([said.prompt_mask, said.mask.to(said.prompt_mask)], dim=1)[:G]
    labels = ids.masked_fill(attention == 0, -100)
    model(input_ids=ids, attention_mask=attention, labels=labels).loss.backward()
    model.zero_grad()


def joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def compare(arguments: argparse.Namespace, settings: TaskSettings, length: int) -> dict[str, Any]:
    """The table of one task."""
    task, clock = build_task(settings), Clock()
    examples = draw(task, "test", arguments.prompts, settings.seed)
    model, tokenizer = load_policy(settings.model, torch.device("cpu"), torch.bfloat16)
    embedder, measure = text_embedder(arguments.embedder), Measure(tokenizer, {"embeddings", "points"}, POINTS)
    states, vectors, texts, tokens = [], [], [], 0
    torch.manual_seed(settings.seed)
    embedder.embed(["warm up"])
    wanted = {"embeddings", "points"}
    for start in range(0, len(examples), TOGETHER):
        prompts = posed([e for e in examples[start : start + TOGETHER] for _ in range(G)], True)
        said = clock("sampling", partial(sample, model, tokenizer, prompts, length, True))
        states.append(clock("policy pass", partial(measure, model, backbone_of(model), *said[:4])))
        vectors.append(clock("embedding", partial(measure_texts, embedder, said.texts, wanted, POINTS)))
        if not start:
            clock("training", partial(train_once, model, said))
        texts, tokens = texts + said.texts, tokens + int(said.mask.sum())
    a, b = signals_of(joined(states)), signals_of(joined(vectors))
    table = tracking_table(a, b, Bootstrap.draw(len(examples), RESAMPLES, settings.seed))
    spent = {what: total / (1 if what == "training" else len(examples)) for what, total in clock.spent.items()}
    step = spent["sampling"] + spent["training"]
    groups = [texts[i : i + G] for i in range(0, len(texts), G)]
    return {
        "groups": len(examples),
        "tokens a response": tokens / len(texts),
        "steps a response": float(joined(vectors)["point_mask"].sum(-1).float().mean()),
        "distinct responses a group": sum(len(set(group)) for group in groups) / len(groups),
        "spearman": {name: table[name][name]["spearman"] for name in a},
        "CPU seconds a group": spent,
        "share of a step": {
            "embedding": spent["embedding"] / (step + spent["embedding"]),
            "policy pass": spent["policy pass"] / (step + spent["policy pass"]),
        },
        "tokens sampled a CPU second": tokens / clock.spent["sampling"],
        "peak memory so far, GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    """Compare on both tasks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="policy with a chat template")
    parser.add_argument("--embedder", default="minilm", help="sentence-transformers model")
    parser.add_argument("--data", required=True, help="JSONL file of GSM8K")
    parser.add_argument("--prompts", type=int, default=32, help="groups a task")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"model": arguments.model, "embedder": arguments.embedder, "G": G}
    tasks = {
        "stories": (TaskSettings(model=arguments.model, task="stories"), 24),
        "gsm8k": (TaskSettings(model=arguments.model, data=arguments.data, prompt_field="question"), 64),
    }
    for name, (settings, length) in tasks.items():
        result[name] = compare(arguments, settings, length)
        print(name, json.dumps(result[name], indent=1), flush=True)
    packages = ("torch", "sentence-transformers", "transformers")
    result["versions"] = {p: version(p) for p in packages} | {"python": platform.python_version()}
    result["device"] = f"{platform.machine()} CPU, 1 thread, bfloat16"
    (Path(__file__).parent / "results" / "geometry.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

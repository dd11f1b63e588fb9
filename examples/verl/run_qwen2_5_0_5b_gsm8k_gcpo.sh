#!/usr/bin/env bash
# GRPO steered by gcpo on one node of 8 GPUs, in the style of verl's own examples; not run by us on GPUs.
#
# In an environment with verl and gcpo (docs/verl.md), after verl's examples/data_preprocess/gsm8k.py:
#   bash examples/verl/run_qwen2_5_0_5b_gsm8k_gcpo.sh [any verl override]
# For several nodes start Ray on each (ray start), run this on the head and add trainer.nnodes=N.
set -xeuo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-0.5B-Instruct}
DATA_DIR=${DATA_DIR:-$HOME/data/gsm8k}

# gcpo, in two settings: the flag, and which recipe. adv_estimator=gcpo instead of grpo makes verl stop, at its
# first advantage step, where the plug-in is not installed.
python3 -m verl.trainer.main_ppo \
    algorithm.adv_estimator=gcpo \
    +algorithm.gcpo.enable=True \
    +algorithm.gcpo.recipe=gcpo-bot \
    +algorithm.gcpo.embedder=hashed \
    '+algorithm.gcpo.log_signals=[semantic_entropy]' \
    data.train_files="$DATA_DIR/train.parquet" \
    data.val_files="$DATA_DIR/test.parquet" \
    data.train_batch_size=1024 \
    data.max_prompt_length=512 \
    data.max_response_length=1024 \
    actor_rollout_ref.model.path="$MODEL_PATH" \
    actor_rollout_ref.model.use_remove_padding=True \
    actor_rollout_ref.model.enable_gradient_checkpointing=True \
    actor_rollout_ref.actor.strategy=fsdp2 \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=256 \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16 \
    actor_rollout_ref.actor.use_kl_loss=True \
    actor_rollout_ref.actor.kl_loss_coef=0.001 \
    actor_rollout_ref.actor.kl_loss_type=low_var_kl \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=32 \
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=32 \
    trainer.n_gpus_per_node=8 \
    trainer.nnodes=1 \
    trainer.total_epochs=15 \
    trainer.test_freq=5 \
    trainer.save_freq=20 \
    trainer.logger='["console"]' \
    trainer.project_name=gcpo \
    trainer.experiment_name=qwen2_5_0_5b_gsm8k_gcpo \
    "$@"

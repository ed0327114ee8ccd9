"""Train an instruct model of Hugging Face to learn from its rewards, in word games of eight episodes.

python examples/meta_rl/train_words.py MODEL FOLDER [STEPS]
accelerate launch --config_file examples/meta_rl/zero2.yaml examples/meta_rl/train_words.py MODEL FOLDER [STEPS]

MODEL is a name at Hugging Face, or a folder in its form; STEPS are 200 without it. The same command resumes a training
that was interrupted. FOLDER gets checkpoints and, at the end, the LoRA adapter.
"""

import os
import sys

import torch
from peft import LoraConfig
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig

from icrl_graph.meta_rl.trials import Instance
from icrl_graph.meta_rl.trl_grpo import ORBIT, TrialTrainer
from icrl_graph.tasks.word_games.answers import earned
from icrl_graph.tasks.word_games.instances import read_item

on_gpu = torch.cuda.is_available()
if len(sys.argv) not in (3, 4):
    sys.exit(__doc__)
model, folder, steps = (*sys.argv[1:], "200")[:3]
names = [f"{family}:train:{seed}" for seed in range(2000) for family in ("prize", "amounts")]
instances = [Instance(name, read_item(name).inputs(), earned) for name in names]
args = GRPOConfig(
    folder,
    **ORBIT,
    num_generations=8,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=4,
    max_completion_length=512,  # what a trial may hold behind its first prompt
    max_steps=int(steps),
    learning_rate=1e-4,
    use_cpu=not on_gpu,
    bf16=on_gpu,
    activation_checkpointing=on_gpu,
    logging_steps=1,
    save_steps=20,
)
trainer = TrialTrainer(
    model,
    instances,
    8,
    args,
    max_response_tokens=8,
    credit="discounted:1",
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if os.path.isdir(folder) else None)
trainer.save_model()

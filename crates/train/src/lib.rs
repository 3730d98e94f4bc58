//! Pre-training, GRPO, fine-tuning, distillation and the records of a run.

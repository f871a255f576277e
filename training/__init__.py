"""The recipe that makes the demo checkpoints: the world, its prompts, the training stages and the evaluation."""

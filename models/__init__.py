"""The mathematics: FrameDiT transformers, samplers, checkpoints. Knows nothing of queues or HTTP."""

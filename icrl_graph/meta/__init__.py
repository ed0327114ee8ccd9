"""Cross-episode meta-RL: how models are trained to learn in their context. Needs PyTorch (the extra `train`)."""

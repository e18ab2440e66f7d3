"""Learning from labelled photographs: what goes in, how a network is trained on them, what is reported of it.

Owns training (`training`, `frozen`, `presets`). Does not own the command (`finetune.py`) or the format of a trained network
(`backbones/trained.py`).
"""

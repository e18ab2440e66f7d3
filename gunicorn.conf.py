"""`gunicorn app:app` with the settings of lookalike.toml and LOOKALIKE_*; gunicorn's own options override them."""

from commands.serve import server_options
from config import load_settings

globals().update(server_options(load_settings()))

"""What goes to the Hub."""

from .model_card import write_model_card, write_run_card

__all__ = ["write_model_card", "write_run_card"]

"""What goes to the Hub beside the weights."""

from .model_card import render_model_card, write_model_card
from .run_record import RunRecord, record_run

__all__ = ["RunRecord", "record_run", "render_model_card", "write_model_card"]

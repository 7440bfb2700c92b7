"""Settings blocks: typed, frozen, unknown keys are errors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A block of settings; a field's docstring is its comment in `tfgan-med describe`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

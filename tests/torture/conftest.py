"""Both ends opened as the engine's tests open them."""

from ..engine.conftest import ends

__all__ = ["ends"]

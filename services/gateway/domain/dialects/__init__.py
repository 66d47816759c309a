"""The LLM protocols that agents speak, as pure functions over bodies, answers and events."""

from services.gateway.domain.dialects.anthropic import AnthropicMessages
from services.gateway.domain.dialects.base import Call, Dialect, Reading, Said
from services.gateway.domain.dialects.openai import OpenAiChat

__all__ = ["AnthropicMessages", "Call", "Dialect", "OpenAiChat", "Reading", "Said"]

"""What the gateway can be told."""

from decimal import Decimal

from quarterdeck.chassis import BusSettings


class Settings(BusSettings):
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 4180
    max_body_bytes: int = 16 << 20
    default_max_output_tokens: int = 4_096
    """The output limit of a call that names none: without one its cost has no bound."""
    provider_openai_url: str = "https://api.openai.com/v1"
    provider_anthropic_url: str = "https://api.anthropic.com/v1"
    provider_ollama_url: str = "http://127.0.0.1:11434/v1"
    provider_compatible_url: str | None = None
    """Any other server that speaks Chat Completions; None: there is none."""
    provider_timeout_s: float = 600.0
    """For an answer's first byte, between any two, and for the whole; at worst an answer takes twice this."""
    ceiling_input_usd_per_mtok: Decimal | None = None
    ceiling_output_usd_per_mtok: Decimal | None = None
    """Assumed for models whose price is not known; unless both are set, such models are refused."""
    reserve_timeout_s: float = 10.0
    """A budget service that does not answer by then is not there: the call is refused with 503."""
    settle_patience_s: float = 30.0
    """How long a settlement or a record is tried when the bus does not take it."""

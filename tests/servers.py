"""The real server as tests see it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr

from agent.core.config import Settings


@dataclass(frozen=True, kw_only=True)
class RealServer:
    """A llama-server with the embedded model and default settings."""

    url: str
    api_key: str
    slots: int

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}

    @property
    def settings(self) -> Settings:
        """Settings that attach to it."""
        return Settings(llamacpp_url=self.url, llamacpp_api_key=SecretStr(self.api_key))

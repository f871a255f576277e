"""The adapter object."""

from typing import Literal, Self

from pydantic import BaseModel, Field

from jobs.adapter_cards import AdapterCard


class Adapter(BaseModel):
    """An adapter that a request can name, or one that a worker has refused."""

    name: str
    object: Literal["adapter"] = "adapter"
    model: str | None = Field(description="The model that it changes; null for a refused adapter")
    status: Literal["available", "refused"]
    description: str = ""
    scale: float = Field(default=1.0, description="The default scale of a request")
    trigger_words: list[str] = Field(default=[], description="Words of a prompt with which it was trained")
    error: str | None = Field(default=None, description="Why it is refused")

    @classmethod
    def of(cls, card: AdapterCard) -> Self:
        return cls(status="available", **card.model_dump())

    @classmethod
    def refused(cls, name: str, error: str) -> Self:
        return cls(name=name, model=None, status="refused", error=error)


class AdapterList(BaseModel):
    """All adapters."""

    object: Literal["list"] = "list"
    data: list[Adapter]

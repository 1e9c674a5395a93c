"""What Ray Serve LLM calls in each CPU replica before it starts vLLM there (``callback_config`` of ``LLMConfig``)."""

import logging
from typing import Any

from ray import serve
from ray.llm._internal.common.callbacks.base import CallbackBase

from serving.engines.cpu_binding import Share, bind

logger = logging.getLogger("ray.serve")


class BindCores(CallbackBase):  # type: ignore[misc]
    """Give the replica the cores that the plan has for it.

    ``shares`` has the cores of each replica of the cell. Serve numbers the replicas of a deployment from 0, and gives
    the number of one that died to the one in its place: each share has one replica.
    """

    def __init__(self, shares: list[dict[str, Any]], **context: Any) -> None:
        super().__init__(**context)
        self.shares = [Share(**one) for one in shares]

    async def on_before_node_init(self) -> None:
        rank = serve.get_replica_context().rank.rank
        logger.info("Replica %d has %s", rank, bind(self.shares[rank % len(self.shares)]))

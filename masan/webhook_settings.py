"""Settings of the process that delivers webhooks."""

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from worker.contract.webhook_target import Networks, parse_networks
from worker.settings import QueueSettings


class WebhookSettings(QueueSettings):
    """webhook_networks: where webhooks may go although it is not public, by http to loopback addresses."""

    webhook_networks: Annotated[Networks, NoDecode, BeforeValidator(parse_networks)] = ()

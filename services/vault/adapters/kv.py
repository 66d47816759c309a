"""The embedded store: encrypted records in a JetStream KV bucket, one key a version of a secret."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from quarterdeck.bus.streams import KV_VAULT
from quarterdeck.kernel.digest import sha256
from quarterdeck.kernel.errors import Unavailable
from services.vault.adapters.envelope import seal, unseal
from services.vault.adapters.keyring import KeyRing
from services.vault.domain import Damage, Place, Receipt


class SealedRecords:
    """Over a connection that it does not own. Makes the bucket when it is missing."""

    def __init__(self, connection: Nats, ring: KeyRing, *, replicas: int = 1) -> None:
        self._connection = connection
        self._ring = ring
        self._replicas = replicas
        self._bucket: KeyValue | None = None

    async def keep(self, place: Place, value: str) -> Receipt | None:
        key_version, record = seal(self._ring, place, value)
        async with _answering():
            try:
                await (await self._opened()).create(_key(place), record)
            except KeyWrongLastSequenceError:
                return None
        return Receipt(key_version, sha256(record))

    async def fetch(self, place: Place, receipt: Receipt) -> str | Damage:
        async with _answering():
            try:
                record = (await (await self._opened()).get(_key(place))).value or b""
            except KeyNotFoundError:
                return Damage("its record is gone")
        if sha256(record) != receipt.ciphertext_sha256:
            return Damage("its record is not the one that was put")
        return unseal(self._ring, place, record)

    async def drop(self, place: Place) -> None:
        async with _answering():
            await (await self._opened()).delete(_key(place))

    async def _opened(self) -> KeyValue:
        if self._bucket is None:
            jetstream = self._connection.jetstream()
            try:
                self._bucket = await jetstream.key_value(KV_VAULT)
            except BucketNotFoundError:
                config = KeyValueConfig(
                    bucket=KV_VAULT, history=1, storage=StorageType.FILE, replicas=self._replicas
                )
                self._bucket = await jetstream.create_key_value(config)
        return self._bucket


def _key(place: Place) -> str:
    return f"{place.workspace}.{place.name}.{place.version}"


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        yield
    except (NatsError, TimeoutError, OSError) as error:
        raise Unavailable(
            f"the store of secrets did not answer: {error or type(error).__name__}", code="QD-VLT-022"
        ) from None

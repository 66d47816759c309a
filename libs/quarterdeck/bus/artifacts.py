"""Files in the object store, each under the SHA-256 of its content."""

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError, ObjectNotFoundError
from nats.js.object_store import ObjectStore

from quarterdeck.bus.streams import ARTIFACTS
from quarterdeck.kernel.digest import sha256
from quarterdeck.kernel.errors import SetupProblem, Unavailable

MAX_BYTES = 64 << 20


class Artifacts:
    """Content-addressed: writing the same bytes twice writes them once, and what is read is checked."""

    def __init__(self, connection: Nats) -> None:
        self._connection = connection
        self._store: ObjectStore | None = None

    async def put(self, content: bytes) -> str:
        """Store and return the SHA-256. Raises SetupProblem above MAX_BYTES, Unavailable."""
        if len(content) > MAX_BYTES:
            raise SetupProblem(
                f"a file of {len(content):,} bytes is more than the {MAX_BYTES:,} an artifact may have",
                code="QD-ART-001",
            )
        name = sha256(content)
        if await self.has(name):
            return name
        try:
            await (await self._bucket()).put(name, content)
        except (NatsError, TimeoutError, OSError) as error:
            raise Unavailable(
                f"the artifact store did not take {len(content):,} bytes: {error or type(error).__name__}",
                code="QD-ART-002",
                hint="is there space on the disk of the data directory?",
            ) from None
        return name

    async def has(self, name: str) -> bool:
        try:
            await (await self._bucket()).get_info(name)
        except (NotFoundError, ObjectNotFoundError):
            return False
        except (NatsError, TimeoutError, OSError) as error:
            raise Unavailable(f"the artifact store did not answer: {error or type(error).__name__}") from None
        return True

    async def get(self, name: str) -> bytes:
        """Raises SetupProblem (QD-ART-003) when there is none or its bytes are not what its name says."""
        try:
            content = (await (await self._bucket()).get(name)).data or b""
        except (NotFoundError, ObjectNotFoundError):
            raise SetupProblem(f"there is no artifact {name[:16]}…", code="QD-ART-003") from None
        except (NatsError, TimeoutError, OSError) as error:
            raise Unavailable(f"the artifact store did not answer: {error or type(error).__name__}") from None
        if sha256(content) != name:
            raise SetupProblem(f"artifact {name[:16]}… is damaged", code="QD-ART-003")
        return content

    async def _bucket(self) -> ObjectStore:
        if self._store is None:
            jetstream = self._connection.jetstream()
            try:
                self._store = await jetstream.object_store(ARTIFACTS)
            except NotFoundError:
                self._store = await jetstream.create_object_store(ARTIFACTS)
        return self._store

"""Puts the journal service together."""

from collections.abc import Sequence

from quarterdeck.chassis import Bus, Service
from quarterdeck.client.verification import verify
from quarterdeck.contracts.journal import (
    QueryJournal,
    ReadView,
    RebuildMission,
    TakeCheckpoint,
    VerifyJournal,
    VerifyReply,
)
from services.journal.adapters.checkpoints import HeadLog
from services.journal.adapters.keys import signer
from services.journal.adapters.model import SqlModel
from services.journal.adapters.stream import EventStream
from services.journal.handlers import Handlers
from services.journal.projection import Checkpointer, Projector, rebuild
from services.journal.settings import Settings


async def build(settings: Settings, bus: Bus | None = None) -> Service:
    """Opens the bus unless given one, and the read models; nothing runs before `start`."""
    bus = bus or await Bus.open("journal", settings)
    heads = HeadLog(bus.connection, settings.journal_dir, replicas=settings.replicas)
    signed_before = await heads.last() is not None
    key = signer(settings.keys_dir, settings.journal_origin, may_make=not signed_before)
    model = await SqlModel.open(settings.journal_dir / "journal.db")
    stream = EventStream(bus.connection)
    projector = Projector(model, stream)
    checkpointer = Checkpointer(
        model,
        heads,
        key,
        lambda: projector.position,
        every_events=settings.journal_checkpoint_every_events,
    )
    projector.when_advanced(checkpointer.advanced)

    async def recorded() -> Sequence[bytes]:
        return await model.leaves(1, projector.position.sequence)

    async def verified() -> VerifyReply:
        return await verify(bus.connection, settings.data_dir, recorded)

    handlers = Handlers(
        model,
        stream,
        reached=projector.reached,
        rebuild=rebuild,
        take_head=checkpointer.take,
        verify=verified,
    )
    service = Service("journal", bus)
    service.answers(QueryJournal, handlers.query)
    service.answers(ReadView, handlers.view)
    service.answers(RebuildMission, handlers.rebuild)
    service.answers(VerifyJournal, handlers.verify)
    service.answers(TakeCheckpoint, handlers.checkpoint)
    service.looks(settings.journal_checkpoint_every_s, checkpointer.look)
    service.runs(stop=model.close)  # stopped in reverse: after the projector that writes to it
    service.runs(start=projector.start, stop=projector.stop)
    return service

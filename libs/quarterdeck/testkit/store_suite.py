"""What every store must hold to. A test module subclasses `StoreSuite` and gives it a `store` fixture.

Each test uses a service name of its own, so that a store may outlive a test.
"""

import asyncio
import itertools
import os

import pytest

from quarterdeck.contracts.budget import Released
from quarterdeck.contracts.envelope import Meta, Recorded
from quarterdeck.eventlog.store import MAX_BATCH, Append, Family, Store
from quarterdeck.kernel.errors import VersionConflict

_numbers = itertools.count(1)


def new_family(workspace: str = "acme") -> Family:
    """A family that nobody has written to."""
    return Family(f"suite-{os.getpid()}-{next(_numbers)}", workspace)


def record(family: Family, number: int = 1, *, aggregate: str = "m1", actor: str = "user:ada") -> Recorded:
    """An event that has not been written yet. The kind does not matter to a store."""
    return Recorded(
        sequence=0,
        workspace=family.workspace,
        subject=f"evt.{family.service}.{family.workspace}.{aggregate}.released",
        event=Released(reservation_id=f"r{number}", mission_id=aggregate, reason="naïve & 100 %"),
        meta=Meta(
            id=f"{family.service}-{family.workspace}-{next(_numbers)}",
            at_ms=1_700_000_000_123 + number,
            actor=actor,
            correlation_id=aggregate,
            causation_id=f"command-{number}",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    )


def records(family: Family, count: int) -> tuple[Recorded, ...]:
    return tuple(record(family, number) for number in range(1, count + 1))


def numbers(found: list[Recorded]) -> list[str]:
    return [event.event.reservation_id for event in found if isinstance(event.event, Released)]


class StoreSuite:
    async def test_an_append_is_loaded_as_it_was_written(self, store: Store) -> None:
        """Event, subject, workspace and every stamp come back; only the sequence is new."""
        family = new_family()
        written = record(family, actor='user:Zoë "the" 100 %\r\nce-id: forged')
        first = await store.append([Append(family, 0, (written,))])
        (loaded,) = await store.load(family)
        assert loaded.sequence == first >= 1
        assert (loaded.event, loaded.meta, loaded.subject) == (written.event, written.meta, written.subject)
        assert loaded.workspace == "acme"

    async def test_sequences_are_consecutive_and_in_order(self, store: Store) -> None:
        """One append takes consecutive sequences, families in the order given; the next append follows."""
        one, two = new_family(), new_family()
        first = await store.append([Append(one, 0, records(one, 3)), Append(two, 0, records(two, 2))])
        assert [e.sequence for e in await store.load(one)] == [first, first + 1, first + 2]
        assert [e.sequence for e in await store.load(two)] == [first + 3, first + 4]
        assert numbers(await store.load(one)) == ["r1", "r2", "r3"]
        assert await store.append([Append(two, first + 4, records(two, 1))]) == first + 5

    @pytest.mark.parametrize("count", [1, 2])
    async def test_a_stale_fence_refuses(self, store: Store, count: int) -> None:
        """A writer that has not seen the last event, or claims one that is not there, writes nothing."""
        family = new_family()
        first = await store.append([Append(family, 0, records(family, 2))])
        for expected in (0, first, first + 2):
            with pytest.raises(VersionConflict):
                await store.append([Append(family, expected, records(family, count))])
        assert len(await store.load(family)) == 2
        await store.append([Append(family, first + 1, records(family, count))])
        assert len(await store.load(family)) == 2 + count

    async def test_one_stale_fence_refuses_the_whole_append(self, store: Store) -> None:
        """Families share an append, and either all of them are written or none."""
        fresh, stale = new_family(), new_family()
        await store.append([Append(stale, 0, records(stale, 1))])
        for batch in (
            [Append(fresh, 0, records(fresh, 2)), Append(stale, 0, records(stale, 2))],
            [Append(stale, 0, records(stale, 2)), Append(fresh, 0, records(fresh, 2))],
        ):
            with pytest.raises(VersionConflict):
                await store.append(batch)
        assert await store.load(fresh) == []
        assert len(await store.load(stale)) == 1

    async def test_other_families_do_not_move_a_fence(self, store: Store) -> None:
        """What others write, in another workspace or another service, leaves a family's version alone."""
        family = new_family()
        version = await store.append([Append(family, 0, records(family, 1))])
        for other in (Family(family.service, "acme-2"), Family(f"{family.service}-2", "acme")):
            await store.append([Append(other, 0, records(other, 2))])
            assert not await store.moved_on(family, version)
        await store.append([Append(family, version, records(family, 1))])
        assert numbers(await store.load(family)) == ["r1", "r1"]

    async def test_a_family_has_many_aggregates(self, store: Store) -> None:
        """The fence stands on all of a family's subjects, and loading brings all of them in order."""
        family = new_family()
        events = tuple(record(family, n, aggregate=f"m{n}") for n in (1, 2, 3))
        first = await store.append([Append(family, 0, events)])
        with pytest.raises(VersionConflict):
            await store.append([Append(family, first, (record(family, 4, aggregate="m1"),))])
        assert numbers(await store.load(family)) == ["r1", "r2", "r3"]

    async def test_of_many_writers_with_one_fence_one_wins(self, store: Store) -> None:
        """Twenty writers expect the same version at once: one append is written, nineteen conflict."""
        family = new_family()
        outcomes = await asyncio.gather(
            *(store.append([Append(family, 0, records(family, 1 + n % 2))]) for n in range(20)),
            return_exceptions=True,
        )
        won = [outcome for outcome in outcomes if isinstance(outcome, int)]
        assert len(won) == 1
        assert all(isinstance(outcome, int | VersionConflict) for outcome in outcomes)
        assert (await store.load(family))[0].sequence == won[0]

    async def test_load_after_leaves_out_what_is_known(self, store: Store) -> None:
        """`after` is exclusive; past the end there is nothing."""
        family = new_family()
        first = await store.append([Append(family, 0, records(family, 4))])
        assert numbers(await store.load(family, first + 1)) == ["r3", "r4"]
        assert await store.load(family, first + 3) == []
        assert await store.load(family, first + 1_000) == []

    async def test_a_long_family_is_loaded_whole(self, store: Store) -> None:
        """More events than a page holds, in full batches, among those of another family, all in order."""
        family, other = new_family(), new_family()
        version = 0
        for _ in range(2):
            version = (
                await store.append([Append(family, version, records(family, MAX_BATCH))]) + MAX_BATCH - 1
            )
            await store.append([Append(other, 0, records(other, 1))])
            other = new_family()
        await store.append([Append(family, version, records(family, 7))])
        loaded = await store.load(family)
        assert numbers(loaded) == [f"r{n}" for count in (1_000, 1_000, 7) for n in range(1, count + 1)]
        assert [e.sequence for e in loaded] == sorted(e.sequence for e in loaded)

    async def test_an_empty_family_is_empty(self, store: Store) -> None:
        """Nothing to load, nothing moved on, and it is no family of its service."""
        family = new_family()
        assert await store.load(family) == []
        assert not await store.moved_on(family, 0)
        assert await store.families(family.service) == []

    async def test_moved_on_tells_that_somebody_wrote(self, store: Store) -> None:
        """True from the first event above the version on, False at the last."""
        family = new_family()
        first = await store.append([Append(family, 0, records(family, 2))])
        assert await store.moved_on(family, 0)
        assert await store.moved_on(family, first)
        assert not await store.moved_on(family, first + 1)

    async def test_families_are_those_of_one_service(self, store: Store) -> None:
        """Sorted by workspace, each once, whatever other services have."""
        family = new_family("b")
        families = [family, Family(family.service, "c"), Family(family.service, "a")]
        for each in families:
            await store.append([Append(each, 0, records(each, 2))])
        alien = Family(f"{family.service}-2", "z")
        await store.append([Append(alien, 0, records(alien, 1))])
        assert [f.workspace for f in await store.families(family.service)] == ["a", "b", "c"]

    async def test_a_conflict_leaves_the_store_usable(self, store: Store) -> None:
        """After a refused batch the same writer loads and writes on."""
        family = new_family()
        await store.append([Append(family, 0, records(family, 1))])
        with pytest.raises(VersionConflict):
            await store.append([Append(family, 0, records(family, 50))])
        version = (await store.load(family))[-1].sequence
        await store.append([Append(family, version, records(family, 50))])
        assert len(await store.load(family)) == 51

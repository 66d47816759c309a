"""The vault's decisions: who gets which secret, for what, and until when."""

from typing import Any

import pytest

from quarterdeck.contracts.envelope import Command, Meta
from quarterdeck.contracts.vault import LeaseReply, SecretLine, SecretReply
from quarterdeck.testkit.stories import given
from services.vault import domain
from services.vault.domain import JudgedUse
from tests.unit.vault.stories import (
    CLOSE,
    CLOSED,
    HOST,
    NOW_MS,
    REVOKE,
    REVOKED,
    TTL_MS,
    asks,
    denied_on_record,
    ended,
    granted,
    kept,
    put,
    put_request,
    use,
)


class TestPut:
    def test_versions_count_up(self) -> None:
        """Each put is the next version, on record without its value."""
        story = given(domain).when(kept(1)).then(put(1))
        outcome = story.when(kept(2), id="command-2")
        outcome.then(put(2))
        assert outcome.answer == SecretReply(name="webhook", version=2)

    def test_a_version_may_be_skipped(self) -> None:
        """A place that a lost put left behind is passed over."""
        given(domain, put(1)).when(kept(3)).then(put(3))

    @pytest.mark.parametrize("version", [1, 2])
    def test_a_version_is_never_put_twice(self, version: int) -> None:
        """QD-VLT-013: what another put overtook is kept again under the next version."""
        outcome = given(domain, put(1), put(2)).when(kept(version))
        assert outcome.refused("QD-VLT-013").transient
        outcome.then_nothing()

    @pytest.mark.parametrize(
        ("changed", "why"),
        [
            ({"uses": ()}, "names no use"),
            ({"hosts": ("https://example.com/",)}, "is no host"),
            ({"hosts": ("example.com",)}, "is no host"),
            ({"hosts": ("example.com:443 ",)}, "is no host"),
            ({"hosts": ("-example.com:443",)}, "is no host"),
            ({"hosts": ("*:443",)}, "is no host"),
            ({"hosts": tuple(f"h{n}:1" for n in range(51))}, "more than 50"),
        ],
    )
    def test_what_can_never_be_used_is_refused(self, changed: dict[str, Any], why: str) -> None:
        """QD-VLT-001: a secret without a use, or with hosts that are none, is refused before it is stored."""
        body = put_request(**changed)
        problem = domain.put_problem(_command(body), body)
        assert problem is not None
        assert problem.code == "QD-VLT-001"
        assert why in problem.message
        assert "hunter2" not in repr(problem)

    @pytest.mark.parametrize("host", ["example.com:443", "127.0.0.1:8080", "LOCALHOST:80", "[::1]:8080"])
    def test_hosts(self, host: str) -> None:
        """Names, IPv4 and IPv6 addresses with a port are hosts, in any case."""
        body = put_request(hosts=(host,))
        assert domain.put_problem(_command(body), body) is None

    def test_agents_change_no_secrets(self) -> None:
        """QD-VLT-014: an agent may neither put nor revoke a secret."""
        body = put_request()
        problem = domain.put_problem(_command(body, actor="agent:acme/ops/triage"), body)
        assert problem is not None
        assert problem.code == "QD-VLT-014"
        outcome = given(domain, put()).when(REVOKE, actor="agent:acme/ops/triage")
        outcome.refused("QD-VLT-014")
        outcome.then_nothing()

    def test_a_plaintext_shows_in_no_repr(self) -> None:
        """INV-23: neither the request nor the answer that carries a value shows it."""
        reply = LeaseReply(lease_id="l1", name="webhook", version=1, expires_at_ms=1, value="hunter2")
        for message in (put_request(), reply):
            assert "hunter2" not in repr(message)
            assert "hunter2" not in str([message])
            assert "hunter2" not in str(message.__rich_repr__())
            assert "webhook" in repr(message)


class TestUse:
    def test_a_use_that_policy_allows_is_leased(self) -> None:
        """INV-22: the lease is on record, with its intent and its end, before it is answered."""
        outcome = asks(given(domain, put()), use())
        outcome.then(granted())
        expected = LeaseReply(
            lease_id="l1", name="webhook", version=1, expires_at_ms=NOW_MS + TTL_MS, value=""
        )
        assert outcome.answer == expected

    def test_the_newest_version_is_leased(self) -> None:
        """A new put is what later uses get; a lease on the older version stays what it was."""
        story = given(domain, put(1), granted(), put(2))
        asks(story, use(lease_id="l2")).then(granted("l2", version=2))
        assert domain.wanted_version(use(), story.state, NOW_MS) == 1

    @pytest.mark.parametrize(
        ("scope", "covered"),
        [
            ("workspace", True),
            ("crew/ops", True),
            ("crew/other", False),
            ("agent/ops/triage", True),
            ("agent/ops/other", False),
            ("agent/other/triage", False),
            ("mission/m1", True),
            ("mission/m2", False),
            ("everything", False),
        ],
    )
    def test_scopes(self, scope: str, covered: bool) -> None:
        """QD-VLT-004: a secret is for its workspace, crew, agent or mission, and for nobody beside."""
        outcome = asks(given(domain, put(scope=scope)), use())
        if covered:
            outcome.then(granted())
        else:
            denied_on_record(outcome, "QD-VLT-004")

    def test_unknown_secret(self) -> None:
        """QD-VLT-002: asking for what isn't there is on record too."""
        denied_on_record(asks(given(domain), use()), "QD-VLT-002")

    def test_revoked_secret(self) -> None:
        """QD-VLT-003: a revoked secret is given to nobody."""
        denied_on_record(asks(given(domain, put(), REVOKED), use()), "QD-VLT-003")

    def test_a_use_that_was_not_allowed(self) -> None:
        """QD-VLT-005: a brokered secret is not handed into the sandbox, nor a fetched one brokered."""
        denied_on_record(asks(given(domain, put()), use(use="fetched")), "QD-VLT-005")
        denied_on_record(asks(given(domain, put(uses=("fetched",))), use()), "QD-VLT-005")

    @pytest.mark.parametrize("target", ["evil.example:443", "reports.example.com:80", "", HOST + ".evil:443"])
    def test_a_brokered_use_goes_to_listed_hosts_only(self, target: str) -> None:
        """QD-VLT-006: a credential is sent to exactly the hosts and ports that it was put for."""
        denied_on_record(asks(given(domain, put()), use(target=target)), "QD-VLT-006")

    def test_no_hosts_is_no_host(self) -> None:
        """QD-VLT-006: a secret without hosts is brokered nowhere."""
        denied_on_record(asks(given(domain, put(hosts=())), use()), "QD-VLT-006")

    def test_hosts_have_no_case(self) -> None:
        """A target matches its host whatever its case."""
        outcome = asks(given(domain, put()), use(target=HOST.upper()))
        outcome.then(granted(target=HOST.upper()))

    def test_a_fetched_use_needs_no_host(self) -> None:
        """Hosts bound where a value is sent; a fetched one goes to its run."""
        story = given(domain, put(uses=("brokered", "fetched"), hosts=()))
        asks(story, use(use="fetched", target="")).then(granted(use="fetched", target=""))

    @pytest.mark.parametrize(("tier", "allowed"), [("L1", True), ("L2", True), ("L3", False), ("L4", False)])
    def test_tiers(self, tier: str, allowed: bool) -> None:
        """QD-VLT-007: policy alone allows L1 and L2; what needs a person is refused."""
        outcome = asks(given(domain, put(tier=tier)), use())
        if allowed:
            outcome.then(granted())
        else:
            denied_on_record(outcome, "QD-VLT-007")

    def test_a_dead_run_gets_nothing(self) -> None:
        """QD-VLT-008, INV-24: a run that is over is refused whatever it asks."""
        denied_on_record(asks(given(domain, put(), CLOSED), use()), "QD-VLT-008")

    def test_damage_is_a_refusal_on_record(self) -> None:
        """QD-VLT-009: a value that can't be opened as it was put gives no lease, on record."""
        event = denied_on_record(asks(given(domain, put()), use(), damage="its record is gone"), "QD-VLT-009")
        assert "its record is gone" in event.message

    def test_damage_never_hides_another_reason(self) -> None:
        """Who may not have a secret learns nothing of its state in the store."""
        story = given(domain, put(scope="crew/other"))
        judged = JudgedUse(use=use(), opened=None, damage="its record is gone")
        denied_on_record(story.when(judged), "QD-VLT-004")

    @pytest.mark.parametrize("opened", [None, 1, 3])
    def test_a_lease_is_for_the_value_at_hand(self, opened: int | None) -> None:
        """QD-VLT-013: no lease is written for a version that was not opened; it is looked at again."""
        outcome = given(domain, put(1), put(2)).when(JudgedUse(use=use(), opened=opened))
        assert outcome.refused("QD-VLT-013").transient
        outcome.then_nothing()


class TestLease:
    def test_asking_again_is_the_same_lease(self) -> None:
        """The same access under the same lease id is one lease while it lasts, with its first end."""
        story = given(domain, put(), granted())
        outcome = asks(story, use(), at_ms=NOW_MS + TTL_MS - 1, id="command-2")
        outcome.then_nothing()
        assert isinstance(outcome.answer, LeaseReply)
        assert outcome.answer.expires_at_ms == NOW_MS + TTL_MS

    def test_a_lease_runs_out(self) -> None:
        """QD-VLT-010: a lease id is worth nothing from its end on."""
        story = given(domain, put(), granted())
        denied_on_record(asks(story, use(), at_ms=NOW_MS + TTL_MS), "QD-VLT-010")

    @pytest.mark.parametrize(
        "changed",
        [
            {"name": "other"},
            {"use": "fetched"},
            {"target": "evil.example:443"},
            {"mission_id": "m2"},
            {"run_id": "r2"},
            {"crew": "other"},
            {"agent": "other"},
        ],
    )
    def test_a_lease_can_not_be_taken_over(self, changed: dict[str, Any]) -> None:
        """QD-VLT-011: a lease id opens nothing but the access that it was given for."""
        story = given(domain, put(), put(name="other"), granted())
        denied_on_record(asks(story, use(**changed)), "QD-VLT-011")

    def test_a_run_ends_its_leases(self) -> None:
        """INV-24: the end of a run ends each of its open leases, once."""
        story = given(domain, put(), granted("l1"), granted("l2"), granted("l3", run_id="r2"))
        story.when(CLOSE).then(ended("run_ended", "l1"), ended("run_ended", "l2"), CLOSED)
        story.when(CLOSE, id="command-2").then_nothing()
        denied_on_record(asks(story, use()), "QD-VLT-010")
        assert domain.wanted_version(use(lease_id="l3", run_id="r2"), story.state, NOW_MS) == 1

    def test_a_closed_run_holds_no_lease(self) -> None:
        """INV-24: that its run is closed is enough to make a lease worthless."""
        story = given(domain, put(), granted(), CLOSED)
        assert domain.wanted_version(use(), story.state, NOW_MS) is None
        denied_on_record(asks(story, use()), "QD-VLT-010")

    def test_a_run_without_leases_is_closed_too(self) -> None:
        """A run that never asked is refused from its end on."""
        given(domain).when(CLOSE).then(CLOSED)

    def test_what_ran_out_is_not_ended_again(self) -> None:
        """A lease that ran out by itself has no second end."""
        given(domain, put(), granted()).when(CLOSE, at_ms=NOW_MS + TTL_MS).then(CLOSED)

    def test_a_run_holds_a_bounded_number(self) -> None:
        """QD-VLT-012: 500 leases at once are as many as a run may hold; those that ran out don't count."""
        story = given(domain, put(), *(granted(f"l{n}") for n in range(500)))
        refusal = asks(story, use(lease_id="more")).refused("QD-VLT-012")
        assert refusal.transient
        asks(story, use(lease_id="other-run", run_id="r2")).then(granted("other-run", run_id="r2"))
        outcome = asks(story, use(lease_id="later"), at_ms=NOW_MS + TTL_MS)
        assert isinstance(outcome.answer, LeaseReply)
        assert len(story.when(CLOSE, at_ms=NOW_MS).events) == 502

    def test_a_repeat_of_the_command_after_the_end(self) -> None:
        """QD-VLT-010, INV-24: the repeat of a command that was granted hears no lease that has ended."""
        story = given(domain, put(), granted(), ended("run_ended"), CLOSED)
        answer = domain.answer(_command(JudgedUse(use=use(), opened=1)), (granted(),), story.state)
        assert getattr(answer, "code", "") == "QD-VLT-010"


class TestRevoke:
    def test_a_revocation_ends_all_leases_at_once(self) -> None:
        """INV-24: every open lease of the secret ends with it, in every run."""
        story = given(domain, put(), put(name="other"), granted("l1"), granted("l2", name="other"))
        outcome = story.when(REVOKE)
        outcome.then(REVOKED, ended("revoked", "l1"))
        assert outcome.answer == SecretReply(name="webhook", version=1)
        assert domain.wanted_version(use(), story.state, NOW_MS) is None
        assert domain.wanted_version(use(lease_id="l2", name="other"), story.state, NOW_MS) == 1

    def test_revoking_twice_is_revoking_once(self) -> None:
        """A second revocation changes nothing."""
        outcome = given(domain, put(), REVOKED).when(REVOKE)
        outcome.then_nothing()
        assert outcome.answer == SecretReply(name="webhook", version=1)

    def test_unknown_secret(self) -> None:
        """QD-VLT-002: what isn't there can't be revoked."""
        outcome = given(domain).when(REVOKE)
        outcome.refused("QD-VLT-002")
        outcome.then_nothing()

    def test_a_new_version_is_a_new_start(self) -> None:
        """After a leak a new version is used; what was leased of the old one stays worthless."""
        story = given(domain, put(1), granted(), REVOKED, put(2))
        asks(story, use(lease_id="l2")).then(granted("l2", version=2))
        denied_on_record(asks(story, use()), "QD-VLT-010")

    def test_more_leases_than_one_append_holds(self) -> None:
        """INV-24: beyond 500 leases the rest is worthless at once and recorded in further rounds."""
        leases = [granted(f"l{n}", run_id=f"r{n % 3}") for n in range(501)]
        story = given(domain, put(), *leases)
        assert len(story.when(REVOKE).events) == 501
        assert all(domain.wanted_version(_again(lease), story.state, NOW_MS) is None for lease in leases)
        assert domain.leftover(story.state, REVOKE, NOW_MS)
        assert len(story.when(REVOKE, id="command-2").events) == 1
        assert not domain.leftover(story.state, REVOKE, NOW_MS)


class TestList:
    def test_everything_but_the_values(self) -> None:
        """The list tells version, scope, uses, hosts, tier, key, revocation and open leases."""
        late = granted("l2", expires_at_ms=NOW_MS)
        state = given(domain, put(1), put(2), granted("l1"), late, put(name="api", tier="L4")).state
        api, webhook = domain.lines(state, NOW_MS).secrets
        assert (api.name, api.tier, api.open_leases) == ("api", "L4", 0)
        assert webhook == SecretLine(
            name="webhook",
            version=2,
            scope="workspace",
            uses=("brokered",),
            hosts=(HOST,),
            tier="L2",
            revoked=False,
            key_version=1,
            open_leases=1,
        )

    def test_revoked_and_closed(self) -> None:
        """A revoked secret says so, and leases of dead runs are not counted."""
        state = given(domain, put(), granted(), CLOSED, put(name="old"), REVOKED).state
        old, webhook = domain.lines(state, NOW_MS).secrets
        assert (old.revoked, webhook.revoked, webhook.open_leases) == (False, True, 0)


def _again(lease: Any) -> Any:
    return use(lease_id=lease.lease_id, run_id=lease.run_id)


def _command(body: Any, actor: str = "user:ada") -> Any:
    return Command(workspace="acme", body=body, meta=Meta(id="c", at_ms=NOW_MS, actor=actor))

"""What a mission leaves in the log, written by hand: for tests of those who only read it."""

from collections.abc import Sequence

from quarterdeck.contracts import approval, budget, gateway, mission, sandbox, vault
from quarterdeck.contracts.envelope import Meta, Recorded
from quarterdeck.contracts.registry import Event, event_type
from quarterdeck.eventlog.store import Append, Family, Store
from quarterdeck.kernel.digest import sha256

PRICE = budget.Price(
    model="m",
    input_microusd_per_mtok=1,
    output_microusd_per_mtok=1,
    cache_read_microusd_per_mtok=1,
    cache_write_microusd_per_mtok=1,
    source="test",
)
SECOND_MS = 1_000


def artifact(name: str, content: str = "") -> mission.Artifact:
    return mission.Artifact(name=name, sha256=sha256(content.encode()), size_bytes=len(content))


class Trail:
    """The events of one mission, one second apart, in the order of the calls. `events` has them."""

    def __init__(
        self,
        mission_id: str = "m1",
        *,
        workspace: str = "acme",
        crew: str = "ops",
        agent: str = "triage",
        at_ms: int = 1_700_000_000_000,
    ) -> None:
        self.events: list[Recorded] = []
        self._workspace = workspace
        self._mission_id = mission_id
        self._crew = crew
        self._agent = agent
        self._at_ms = at_ms
        self._calls = 0

    @property
    def run_id(self) -> str:
        return f"{self._mission_id}-run"

    def add(self, event: Event, *, actor: str = "service:test") -> "Trail":
        number = len(self.events) + 1
        self._at_ms += SECOND_MS
        meta = Meta(
            id=f"{self._workspace}-{self._mission_id}-{number}",
            at_ms=self._at_ms,
            actor=actor,
            correlation_id=self._mission_id,
            causation_id=f"cause-{number}",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        subject = event_type(type(event)).subject(self._workspace, event)
        self.events.append(
            Recorded(sequence=0, workspace=self._workspace, subject=subject, event=event, meta=meta)
        )
        return self

    def accepted(self, *, goal: str = "Profile the file", content: str = "a,b\n1,2\n") -> "Trail":
        self.add(
            mission.MissionAccepted(
                mission_id=self._mission_id,
                crew=self._crew,
                goal=goal,
                inputs=(artifact("data.csv", content),),
                tasks=(mission.Task(name="main", agent=self._agent),),
                budget_microusd=1_000_000,
                model="recorded:steady",
                config_sha256="c" * 64,
                request_sha256="d" * 64,
                requested_by="user:ada",
            )
        )
        opened = budget.PoolOpened(mission_id=self._mission_id, crew=self._crew, limit_microusd=1_000_000)
        return self.add(opened)

    def run(self, attempt: int = 1) -> "Trail":
        id = self._mission_id
        self.add(
            mission.RunRequested(
                mission_id=id, run_id=self.run_id, task="main", attempt=attempt, crew=self._crew,
                agent=self._agent, goal="", program=artifact("agent.tar"), argv=("python", "main.py"),
                inputs=(), limits=mission.RunLimits(),
            )
        )  # fmt: skip
        self.add(
            sandbox.SandboxRequested(
                mission_id=id, run_id=self.run_id, crew=self._crew, agent=self._agent, task="main",
                attempt=attempt,
            )
        )  # fmt: skip
        self.add(
            sandbox.SandboxStarted(
                mission_id=id, run_id=self.run_id, driver="bubblewrap", limits_held={"memory": "cgroup"}
            )
        )
        return self.add(mission.RunStarted(mission_id=id, run_id=self.run_id, driver="bubblewrap"))

    def llm(
        self, *, cost_microusd: int = 4_200, input_tokens: int = 1_000, output_tokens: int = 50
    ) -> "Trail":
        """One call: reserved, settled, completed."""
        number = self._next()
        usage = budget.Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        self.reserved(number, amount_microusd=2 * cost_microusd)
        self.add(
            budget.Settled(
                reservation_id=self._reservation(number), mission_id=self._mission_id,
                cost_microusd=cost_microusd, usage=usage, confidence="precise",
            )
        )  # fmt: skip
        return self.add(
            gateway.LlmCallCompleted(
                step_id=f"{self._mission_id}-s{number}", mission_id=self._mission_id, run_id=self.run_id,
                crew=self._crew, agent=self._agent, task="main", request_sha256=f"{number:064x}",
                occurrence=0, protocol="openai.chat", model="recorded:steady", provider="recorded",
                reservation_id=self._reservation(number), stream=False, usage=usage,
                cost_microusd=cost_microusd, confidence="precise", latency_ms=120, stop_reason="stop",
                tool_calls=(), response_sha256=f"{number:064x}",
            )
        )  # fmt: skip

    def reserved(self, number: int, *, amount_microusd: int) -> "Trail":
        scopes = (
            "workspace", f"crew/{self._crew}", f"mission/{self._mission_id}",
            f"agent/{self._crew}/{self._agent}",
        )  # fmt: skip
        return self.add(
            budget.Reserved(
                reservation_id=self._reservation(number), mission_id=self._mission_id, run_id=self.run_id,
                crew=self._crew, agent=self._agent, amount_microusd=amount_microusd,
                charges=tuple(
                    budget.ScopeCharge(scope=scope, window="total", window_start_ms=0) for scope in scopes
                ),
                model="recorded:steady", price=PRICE, input_tokens_bound=1, output_tokens_bound=1,
                reserved_at_ms=self._at_ms, expires_at_ms=self._at_ms + 900_000,
            )
        )  # fmt: skip

    def refused_call(self) -> "Trail":
        number = self._next()
        return self.add(
            gateway.LlmCallRefused(
                step_id=f"{self._mission_id}-s{number}", mission_id=self._mission_id, run_id=self.run_id,
                crew=self._crew, agent=self._agent, task="main", request_sha256=f"{number:064x}",
                occurrence=0, protocol="openai.chat", model="recorded:steady", code="QD-BUD-002",
                reason="over_limit", message="budget of mission would be overspent",
            )
        )  # fmt: skip

    def replayed(self) -> "Trail":
        number = self._next()
        return self.add(
            gateway.LlmCallReplayed(
                step_id=f"{self._mission_id}-s{number}", mission_id=self._mission_id, run_id=self.run_id,
                crew=self._crew, agent=self._agent, task="main", request_sha256=f"{1:064x}", occurrence=0,
                protocol="openai.chat", model="recorded:steady", response_sha256=f"{1:064x}",
                original_step_id=f"{self._mission_id}-s1",
            )
        )  # fmt: skip

    def tool(
        self, name: str = "publish_report", *, decided: approval.Outcome = "approved", failed: bool = False
    ) -> "Trail":
        """One gated call: proposed, asked, decided by ada; if approved, executed with a brokered secret."""
        number, id = self._next(), self._mission_id
        action, target = f"{id}-a{number}", "http://127.0.0.1:9/reports"
        who = {"mission_id": id, "run_id": self.run_id, "crew": self._crew, "agent": self._agent}
        call = {"tool": name, "arguments_sha256": f"{number:064x}", "target": target}
        self.add(gateway.ToolProposed(action_id=action, task="main", **who, **call))
        self.add(
            approval.ApprovalRequested(
                approval_id=action, rule="publishing", policy_version=1,
                deadline_at_ms=self._at_ms + 3_600_000, **who, **call,
            )
        )  # fmt: skip
        self.add(mission.MissionParked(mission_id=id, approval_id=action))
        self.add(
            approval.ApprovalDecided(
                approval_id=action, mission_id=id, outcome=decided, decided_by="user:ada", note="",
                grant_expires_at_ms=self._at_ms + 60_000,
            ),
            actor="user:ada",
        )  # fmt: skip
        self.add(mission.MissionResumed(mission_id=id, approval_id=action))
        if decided == "approved":
            self._executed(action, name, target, number)
        outcome = "denied" if decided == "denied" else "error" if failed else "ok"
        return self.add(
            gateway.ToolReturned(
                action_id=action, mission_id=id, tool=name,
                outcome="denied" if outcome == "denied" else "error" if outcome == "error" else "ok",
                code="", message="", result_sha256=f"{number:064x}",
            )
        )  # fmt: skip

    def _executed(self, action: str, tool: str, target: str, number: int) -> None:
        id = self._mission_id
        self.add(
            vault.LeaseGranted(
                lease_id=f"{action}-lease", name="report-token", version=1, use="brokered",
                intent=f"call {tool}", mission_id=id, run_id=self.run_id, crew=self._crew,
                agent=self._agent, target="127.0.0.1:9", expires_at_ms=self._at_ms + 300_000,
            )
        )  # fmt: skip
        self.add(approval.GrantRedeemed(approval_id=action, mission_id=id, execution_id=action))
        self.add(
            gateway.ToolExecuted(
                action_id=action, mission_id=id, tool=tool, target=target, status_code=201, latency_ms=12,
                credential="report-token", lease_id=f"{action}-lease", result_sha256=f"{number:064x}",
            )
        )  # fmt: skip

    def ended(self, *, outcome: mission.RunOutcome = "succeeded", exit_code: int | None = 0) -> "Trail":
        self.add(
            sandbox.SandboxEnded(
                mission_id=self._mission_id, run_id=self.run_id, kind="exited", exit_code=exit_code,
                wall_ms=3_200, peak_memory_bytes=90 << 20, outputs=(artifact("report.md"),),
                output_tail="done",
            )
        )  # fmt: skip
        return self.add(
            mission.RunEnded(
                mission_id=self._mission_id, run_id=self.run_id, task="main", attempt=1, outcome=outcome,
                exit_code=exit_code, wall_ms=3_200, outputs=(artifact("report.md"),),
            )
        )  # fmt: skip

    def completed(self) -> "Trail":
        self.ended()
        outputs = (artifact("report.md"),)
        return self.add(mission.MissionCompleted(mission_id=self._mission_id, outputs=outputs))

    def failed(self) -> "Trail":
        self.ended(outcome="failed", exit_code=3)
        return self.add(
            mission.MissionFailed(
                mission_id=self._mission_id, code="QD-MIS-010", reason="run_failed", message="it ended with 3"
            )
        )

    def cancelled(self) -> "Trail":
        return self.add(mission.MissionCancelled(mission_id=self._mission_id, reason="not needed any more"))

    def _reservation(self, number: int) -> str:
        return f"{self._mission_id}-r{number}"

    def _next(self) -> int:
        self._calls += 1
        return self._calls


class Scribe:
    """Appends recorded events through a store, whatever their families, in the order given."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._versions: dict[Family, int] = {}

    async def write(self, events: Sequence[Recorded]) -> int:
        """The sequence of the last one. One append for each run of events of the same family."""
        last = 0
        run: list[Recorded] = []
        for recorded, following in zip(events, [*events[1:], None], strict=True):
            run.append(recorded)
            if following is None or _family(following) != _family(recorded):
                family = _family(recorded)
                expected = self._versions.get(family, 0)
                last = await self._store.append([Append(family, expected, tuple(run))]) + len(run) - 1
                self._versions[family] = last
                run = []
        return last


def _family(recorded: Recorded) -> Family:
    return Family(recorded.type.service, recorded.workspace)

"""Two missions as numbers: what changed, by how much, and whether it is worse."""

from collections.abc import Sequence

from quarterdeck.contracts.eval import Delta, DiffReply, Metrics, Step, Verdict

THRESHOLDS: dict[str, float | None] = {
    "steps": 0.25,
    "llm_calls": 0.25,
    "tool_calls": 0.25,
    "input_tokens": 0.25,
    "output_tokens": 0.25,
    "cost_microusd": 0.25,
    "refusals": 0.0,
    "errors": 0.0,
    "approvals": None,
    "denials": None,
    "attempts": None,
    "llm_latency_ms": None,
    "wall_ms": None,
}
"""A metric that rose by more than this share of the baseline is worse; 0: any rise. None: shown, not judged.

Time is not judged, as one run on a busy machine says nothing of the next; nor are attempts, as a lost sandbox
is not the agent's doing; nor approvals and denials, which are a person's.
"""


def compare(baseline: Metrics, value: Metrics) -> tuple[Delta, ...]:
    """The outcome first (1 completed, 0 not), then each metric of THRESHOLDS.

    A mission that fell short after a person had denied it more than the baseline was denied is not judged by
    its outcome: saying no is the person's doing. What it took until then is judged as ever.
    """
    before, now = float(baseline.outcome == "completed"), float(value.outcome == "completed")
    denied = value.denials > baseline.denials
    deltas = [
        Delta(
            metric="outcome",
            baseline=before,
            value=now,
            change=now - before,
            threshold=None if denied else 0.0,
            regressed=now < before and not denied,
        )
    ]
    for metric, threshold in THRESHOLDS.items():
        old, new = float(getattr(baseline, metric)), float(getattr(value, metric))
        change = (new - old) / old if old else new
        regressed = threshold is not None and change > threshold
        deltas.append(
            Delta(
                metric=metric,
                baseline=old,
                value=new,
                change=change,
                threshold=threshold,
                regressed=regressed,
            )
        )
    return tuple(deltas)


def verdict_of(deltas: Sequence[Delta]) -> Verdict:
    """worse: something regressed; better: something judged fell by its threshold; mixed: both."""
    worse = any(delta.regressed for delta in deltas)
    better = any(_improved(delta) for delta in deltas)
    if worse and better:
        return "mixed"
    return "worse" if worse else "better" if better else "same"


def _improved(delta: Delta) -> bool:
    if delta.metric == "outcome":
        return delta.value > delta.baseline
    return delta.threshold is not None and delta.change < -delta.threshold


def step_distance(one: Sequence[Step], other: Sequence[Step]) -> int:
    """Levenshtein distance of the two sequences: steps added, left out or replaced.

    Two steps are the same when kind, outcome and, of a tool, its name are. Which model answered is not looked
    at: the same way through the work is the same trajectory, whoever goes it.
    """
    left, right = [_symbol(step) for step in one], [_symbol(step) for step in other]
    # What both begin and end with costs nothing: most trajectories of a kind are nearly the same.
    while left and right and left[-1] == right[-1]:
        left.pop()
        right.pop()
    start = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    start = min(len(left), len(right)) if start is None else start
    left, right = left[start:], right[start:]
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def _symbol(step: Step) -> tuple[str, str, str]:
    return (step.kind, step.name if step.kind == "tool" else "", step.outcome)


def diff_of(
    mission_id: str,
    baseline_id: str,
    baseline: tuple[Metrics, tuple[Step, ...]],
    value: tuple[Metrics, tuple[Step, ...]],
) -> DiffReply:
    deltas = compare(baseline[0], value[0])
    return DiffReply(
        mission_id=mission_id,
        baseline_id=baseline_id,
        verdict=verdict_of(deltas),
        deltas=deltas,
        step_distance=step_distance(baseline[1], value[1]),
    )

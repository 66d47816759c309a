"""Rules judged by CEL in a process of its own (judge.py), started when first needed and after each death."""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from pathlib import Path

import msgspec

from quarterdeck.contracts.approval import Rule
from quarterdeck.kernel.errors import Unavailable
from services.approval.domain import Action, Verdict

JUDGE = Path(__file__).with_name("judge.py")
START_LIMIT_S = 20.0
GRACE_S = 2.0
"""The process ends itself when it is over its limit; this is for a machine too busy to let it."""
LINE_BYTES = 64 << 10


class Ruling(msgspec.Struct, frozen=True):
    """`at`: which rule; `failure`: why it could not be told."""

    at: int | None = None
    failure: str = ""


class CelRules:
    """One process, one question at a time. `limit_s` bounds each."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def judge(self, policy_version: int, rules: Sequence[Rule], action: Action) -> Verdict:
        if not rules:
            return Verdict(policy_version=policy_version)
        question = {"rules": [rule.when for rule in rules], "values": msgspec.to_builtins(action)}
        ruling = await self._ask(question)
        name = rules[ruling.at].name if ruling.at is not None else None
        return Verdict(policy_version=policy_version, rule=name, failure=ruling.failure)

    async def complaint(self, rules: Sequence[Rule]) -> tuple[str, str] | None:
        for rule in rules:  # one by one: a rule that ends the process is known by name
            ruling = await self._ask({"rules": [rule.when]})
            if ruling.failure:
                return rule.name, ruling.failure
        return None

    async def close(self) -> None:
        async with self._turn:
            await self._end()

    async def _ask(self, question: dict[str, object]) -> Ruling:
        async with self._turn:
            process = await self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            answered = False
            try:
                process.stdin.write(msgspec.json.encode(question) + b"\n")
                line = await asyncio.wait_for(process.stdout.readline(), self._limit_s + GRACE_S)
                if not line:
                    return Ruling(failure=self._death(await process.wait()))
                ruling = msgspec.json.decode(line, type=Ruling)
                answered = True
                return ruling
            except TimeoutError:
                return Ruling(failure=f"it took more than {self._limit_s:g} s")
            finally:
                if not answered:  # also when cancelled: a late answer must not be taken for the next one's
                    await self._end()

    def _death(self, code: int) -> str:
        if code == -signal.SIGALRM:
            return f"it took more than {self._limit_s:g} s"
        return f"it broke the rules' process (exit code {code}): too much memory, or too deep"

    async def _running(self) -> Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(JUDGE),
                str(self._limit_s),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env={},
                limit=LINE_BYTES,
            )
            assert self._process.stdout is not None
            if await asyncio.wait_for(self._process.stdout.readline(), START_LIMIT_S):
                return self._process
        except (OSError, TimeoutError) as error:
            await self._end()
            raise Unavailable(f"the rules' process did not start: {error}", code="QD-APR-015") from None
        await self._end()
        raise Unavailable(
            "the rules' process ended at its start",
            code="QD-APR-015",
            hint="is the package common-expression-language installed?",
        )

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()

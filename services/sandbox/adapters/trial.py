"""The part of a probe that is the same for every driver: start a sandbox and look whether it worked."""

import secrets
import tempfile

from services.sandbox.ports import PYTHON, Driver, Finding, SandboxError, SandboxSpec, SandboxUnavailable

_WORD = "ready"


async def trial(driver: Driver, fix: str) -> list[Finding]:
    """Run this interpreter in a real sandbox. `fix` is the advice for one that starts and then fails."""
    with tempfile.TemporaryDirectory(prefix="quarterdeck-probe-") as folder:
        argv = (PYTHON, "-I", "-S", "-c", f"print({_WORD!r})")
        spec = SandboxSpec(run_id=f"probe-{secrets.token_hex(4)}", argv=argv, env={}, work_dir=folder)
        try:
            sandbox = await driver.start(spec)
        except SandboxError as error:
            return [Finding(check="sandbox", ok=False, what=error.message, fix=error.hint, code=error.code)]
        sandbox.edge.close()
        end = await sandbox.wait()
    if end.output_tail.decode("utf-8", "replace").strip() != _WORD:
        said = end.detail or end.output_tail.decode("utf-8", "replace")
        what = f"a trial sandbox ended as {end.kind} {end.code}: {said}"
        return [Finding(check="sandbox", ok=False, what=what, fix=fix, code=SandboxUnavailable.code)]
    held = ", ".join(f"{limit} by {how}" for limit, how in sandbox.limits_held.items())
    return [
        Finding(check="sandbox", ok=True, what=f"a trial sandbox ran in {end.wall_ms} ms"),
        Finding(check="limits", ok=True, what=held),
    ]

"""The sandbox service: one closed container a run.

Decides whether a run is started, and that it is started once: a run that was requested, started, asked to
stop
          or ended is never started again under the same id.
Consumes  `cmd.sandbox.start`, `cmd.sandbox.stop`, and its own `cmd.sandbox.observe` (what the driver saw).
Emits     `requested`, `started`, `stop_requested`, `ended`, `unstartable`, each under the run's mission.
Keeps     a sandbox reaches nothing but its edge; no process in it is the host's root; its limits hold, and
          `started` says by which mechanism; it ends with this service; "the command failed" is never
          confused with "the sandbox died".

`ports.py` says what a driver is; `adapters/` has bubblewrap (a Linux machine that allows user namespaces, no
daemon) and docker (where a daemon answers).
"""

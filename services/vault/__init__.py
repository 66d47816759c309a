"""Vault: secrets kept encrypted, decided on each request, leased for a while, all on record.

Decides: PutSecret, RevokeSecret, UseSecret, CloseRun.
Answers: ListSecrets.
Consumes: mission.run_ended (the run's leases end, and it gets no more).
Emits: secret_put, secret_revoked, lease_granted, access_denied, lease_ended, run_closed.

INV-22  No value leaves without a lease that was decided and written before; what is refused is written too.
INV-23  A value is nowhere but in memory and encrypted in the store: in no event, log, error or file.
INV-24  A lease is worth nothing once its secret is revoked or its run is over.
"""

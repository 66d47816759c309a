"""Journal: what happened, in order, searchable, and provably unaltered.

Answers: QueryJournal, ReadView, RebuildMission, VerifyJournal, TakeCheckpoint.
Consumes: every event of the stream EVENTS, unfiltered. Decides nothing, emits nothing.
Writes: the read models in `<data_dir>/journal/journal.db`; signed tree heads in
`<data_dir>/journal/checkpoints.log` and in the bucket CHECKPOINTS.

INV-30 The read models hold each event of the stream exactly once: the position is written with the rows.
INV-31 A read model can be thrown away: rebuilt from the stream it is the same, row for row.
INV-32 Every event of a signed checkpoint can be altered, dropped, moved, or cut off only so that verification
       says so. The journal never signs a head that doesn't extend the last one it signed.
"""

-- Whose client ids they are: a fold of the log like the state, and stored beside it. Empty in the snapshots that are there: of what was written before
-- them nobody knows.
alter table document_snapshots add column writers bytea not null default '';

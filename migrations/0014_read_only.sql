-- A document whose log keeps breaking whoever folds it is only read from then on, until an administrator opens it again.
alter table document_heads add column read_only_since timestamptz;
grant update (read_only_since) on document_heads to contextnexus_application;

-- As any other change of somebody's right. Appends do not name the column, so they never come by here.
create constraint trigger raise_access_epoch after update of read_only_since on document_heads deferrable initially deferred
    for each row when (old.read_only_since is distinct from new.read_only_since) execute function raise_access_epoch();

-- Where a login came from, so that who guesses an account's password elsewhere does not lock its owner out. A hash, keyed
-- with the tenant's own key: neither a backup nor a look at the table tells where people are. With the session's row it goes.
alter table user_sessions add column login_network bytea check (octet_length(login_network) = 32);

-- Why a document is only read: `broken_folds` (also where nothing stands, from before this column), `corrupt_row`,
-- `missing_rows` or `lost_head`. Without a check, as all of this table (0017).
alter table document_heads add column read_only_reason text;
grant update (read_only_reason) on document_heads to contextnexus_application;

-- What an administrator does who opens a damaged document again: a row whose numbers are lost is given those between its neighbors'.
grant update (seq_to) on operations_log to contextnexus_application;

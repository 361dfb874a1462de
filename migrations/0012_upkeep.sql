-- What ends is removed after a while, a few rows at a time: sessions by their end, idempotency keys by their age (an index of 0004).
create index user_sessions_ended on user_sessions (tenant_id, least(expires_at, revoked_at));

-- Removing a session that has ended anyway changes nobody's rights.
drop trigger raise_access_epoch_on_delete on user_sessions;
create constraint trigger raise_access_epoch_on_delete after delete on user_sessions deferrable initially deferred
    for each row when (old.revoked_at is null and old.expires_at > now()) execute function raise_access_epoch();

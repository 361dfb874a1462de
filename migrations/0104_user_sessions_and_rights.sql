-- Logins, API tokens, tokens of one document, and tickets.
create table user_sessions (
    tenant_id         uuid not null,
    id                uuid not null,
    user_id           uuid not null,
    kind              text not null check (kind in ('login', 'api', 'document', 'ticket')),
    -- Tickets and document tokens end with the user session that asked for them: a sign-out or a revoked token leaves
    -- none open.
    parent_id         uuid,
    -- What an administrator reads in a list of tokens.
    name              text check (octet_length(name) between 1 and 400),
    -- SHA-256 of the token's secret part, which is random and long: nothing to guess, nothing to stretch.
    token_hash        bytea not null check (octet_length(token_hash) = 32),
    -- Tokens of one document: which, and at most in which role.
    document_id       uuid,
    role              text check (role in ('viewer', 'editor', 'admin')),
    -- Where a login came from, so that guessing an account's password elsewhere does not lock its owner out. A hash,
    -- keyed with the tenant's own key: neither a backup nor the table tells where people are. It is removed with the
    -- row.
    login_network     bytea check (octet_length(login_network) = 32),
    created_by        uuid,
    created_at        timestamptz not null default now(),
    expires_at        timestamptz not null,
    -- Tickets: presented once, until then.
    redeem_by         timestamptz,
    redeemed_at       timestamptz,
    revoked_at        timestamptz,
    last_activity_at  timestamptz,
    primary key (tenant_id, id),
    constraint user_sessions_token_key unique (tenant_id, token_hash),
    constraint user_sessions_scope check ((kind in ('document', 'ticket')) = (document_id is not null)
                                          and (document_id is null) = (role is null)),
    constraint user_sessions_ticket check ((kind = 'ticket') = (redeem_by is not null)
                                           and (redeemed_at is null or kind = 'ticket')),
    constraint user_sessions_parent foreign key (tenant_id, parent_id)
        references user_sessions (tenant_id, id) on delete cascade,
    foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade,
    foreign key (tenant_id, created_by) references users (tenant_id, id) on delete set null (created_by),
    foreign key (tenant_id, document_id) references content_items (tenant_id, id) on delete cascade
);
create index user_sessions_user on user_sessions (tenant_id, user_id);
create index user_sessions_created_by on user_sessions (tenant_id, created_by);
create index user_sessions_document on user_sessions (tenant_id, document_id);
create index user_sessions_parent on user_sessions (tenant_id, parent_id);
-- Rows are removed some days after they ended, a few at a time.
create index user_sessions_ended on user_sessions (tenant_id, least(expires_at, revoked_at));
select isolate_tenant('user_sessions');
grant select, insert, delete on user_sessions to contextnexus_application;
grant update (name, expires_at, redeemed_at, revoked_at, last_activity_at) on user_sessions to contextnexus_application;

-- The user sessions that open something now, with what their user is. The only place that says when a user session
-- ends.
create view user_sessions_in_force with (security_invoker = true) as
select s.tenant_id, s.id, s.user_id, s.kind, s.token_hash, s.document_id, s.role, s.last_activity_at,
       least(s.expires_at, parent.expires_at) as expires_at,
       u.kind as user_kind, u.is_tenant_admin
  from user_sessions s
  join users u on u.tenant_id = s.tenant_id and u.id = s.user_id
  join tenants t on t.id = s.tenant_id
  left join user_sessions parent on parent.tenant_id = s.tenant_id and parent.id = s.parent_id
 where s.revoked_at is null and s.expires_at > now()
   and u.is_active and t.is_active
   and (s.parent_id is null or (parent.revoked_at is null and parent.expires_at > now()))
   -- A ticket opens nothing before it is redeemed.
   and (s.kind <> 'ticket' or s.redeemed_at is not null);
grant select on user_sessions_in_force to contextnexus_application;

-- One number per tenant that rises with everything that may change somebody's right. Nodes poll this and nothing
-- else.
create table tenant_access_epochs (
    tenant_id  uuid primary key references tenants (id) on delete cascade,
    epoch      bigint not null default 1
) with (fillfactor = 50);
select isolate_tenant('tenant_access_epochs');
grant select, insert on tenant_access_epochs to contextnexus_application;
grant update (epoch) on tenant_access_epochs to contextnexus_application;

create function begin_access_epochs() returns trigger
    language plpgsql
    as $$
begin
    insert into tenant_access_epochs (tenant_id) values (new.id);
    return null;
end
$$;
create trigger begin_access_epochs after insert on tenants for each row execute function begin_access_epochs();

create function raise_access_epoch() returns trigger
    language plpgsql
    as $$
begin
    update tenant_access_epochs set epoch = epoch + 1
     where tenant_id = nullif(current_setting('app.current_tenant_id', true), '')::uuid;
    return null;
end
$$;

-- Deferred to COMMIT: the epoch's row is the last lock that a transaction takes, is held briefly, and is never part
-- of a deadlock.
create constraint trigger raise_access_epoch after update of is_active on tenants deferrable initially deferred
    for each row when (old.is_active is distinct from new.is_active) execute function raise_access_epoch();

create constraint trigger raise_access_epoch after update on users deferrable initially deferred
    for each row when ((old.is_active, old.is_tenant_admin) is distinct from (new.is_active, new.is_tenant_admin))
    execute function raise_access_epoch();

create constraint trigger raise_access_epoch after update on user_sessions deferrable initially deferred
    for each row when ((old.revoked_at, old.expires_at) is distinct from (new.revoked_at, new.expires_at))
    execute function raise_access_epoch();
-- Removing a user session that has ended changes nobody's rights.
create constraint trigger raise_access_epoch_on_delete after delete on user_sessions deferrable initially deferred
    for each row when (old.revoked_at is null and old.expires_at > now()) execute function raise_access_epoch();

create constraint trigger raise_access_epoch after update on projects deferrable initially deferred
    for each row when (old.is_archived is distinct from new.is_archived) execute function raise_access_epoch();

create constraint trigger raise_access_epoch after update on project_memberships deferrable initially deferred
    for each row when (old.role is distinct from new.role) execute function raise_access_epoch();
create constraint trigger raise_access_epoch_on_insert_or_delete after insert or delete on project_memberships
    deferrable initially deferred for each row execute function raise_access_epoch();

create constraint trigger raise_access_epoch after update on content_items deferrable initially deferred
    for each row when ((old.deleted_at is null) is distinct from (new.deleted_at is null))
    execute function raise_access_epoch();

-- What every node asks several times a second, whether anything happens or not, as one statement that binds itself to
-- its tenant. A transaction of several statements takes three round trips for one question.
create function access_epoch(tenant uuid) returns bigint
    language plpgsql volatile
    as $$
begin
    perform set_config('app.current_tenant_id', tenant::text, true);
    return (select e.epoch from tenant_access_epochs e where e.tenant_id = tenant);
end
$$;
grant execute on function access_epoch(uuid) to contextnexus_application;

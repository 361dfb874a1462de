-- One number per tenant that rises with whatever may change somebody's right, so that nodes poll this and nothing else.
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

-- Deferred to COMMIT: the counter's row is the last lock a transaction takes, held for a moment, and never part of a deadlock.
create constraint trigger raise_access_epoch after update of is_active on tenants deferrable initially deferred
    for each row when (old.is_active is distinct from new.is_active) execute function raise_access_epoch();

create constraint trigger raise_access_epoch after update on users deferrable initially deferred
    for each row when ((old.is_active, old.is_tenant_admin) is distinct from (new.is_active, new.is_tenant_admin))
    execute function raise_access_epoch();

create constraint trigger raise_access_epoch after update on user_sessions deferrable initially deferred
    for each row when ((old.revoked_at, old.expires_at) is distinct from (new.revoked_at, new.expires_at))
    execute function raise_access_epoch();
create constraint trigger raise_access_epoch_on_delete after delete on user_sessions deferrable initially deferred
    for each row when (old.revoked_at is null) execute function raise_access_epoch();

create constraint trigger raise_access_epoch after update on projects deferrable initially deferred
    for each row when (old.is_archived is distinct from new.is_archived) execute function raise_access_epoch();

create constraint trigger raise_access_epoch after update on project_memberships deferrable initially deferred
    for each row when (old.role is distinct from new.role) execute function raise_access_epoch();
create constraint trigger raise_access_epoch_on_insert_or_delete after insert or delete on project_memberships
    deferrable initially deferred for each row execute function raise_access_epoch();

create constraint trigger raise_access_epoch after update on content_items deferrable initially deferred
    for each row when ((old.deleted_at is null) is distinct from (new.deleted_at is null))
    execute function raise_access_epoch();

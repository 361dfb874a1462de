-- Tickets and document tokens end with the session that asked for them: who signs out, or has a token revoked, keeps no open door.
alter table user_sessions add column parent_id uuid;
alter table user_sessions add constraint user_sessions_parent
    foreign key (tenant_id, parent_id) references user_sessions (tenant_id, id) on delete cascade;
create index user_sessions_parent on user_sessions (tenant_id, parent_id);

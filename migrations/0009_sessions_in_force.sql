-- Sessions that open something at this moment, with what their user is. The one place that says when a session ends.
create view sessions_in_force with (security_invoker = true) as
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
grant select on sessions_in_force to contextnexus_application;

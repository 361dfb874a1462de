-- Authenticates what nodes tell each other about a tenant through Redis, which is trusted with nothing. Two random UUIDs are more than
-- the 128 random bits that such a key needs; every row gets its own.
alter table tenants
    add column bus_key bytea not null
        default sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
        check (octet_length(bus_key) = 32);

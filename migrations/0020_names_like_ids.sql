-- A name may be a UUID, or 32 hexadecimal digits: Yjs names sub-documents so, and documents that were brought from
-- other servers have such names. A room that is named like an id leads to the document of that id first
-- (src/postgres/authority/lookup.rs).
--
-- What else a name may be is in one place, contextnexus_actors::room. The table holds no more than what keeps a row
-- readable, so that a document which has its name from before a rule can still be renamed, deleted and restored.
alter table content_items drop constraint content_items_check;
alter table content_items add constraint content_items_name_check check (
    octet_length(name) between 1 and 200 and name is nfc normalized and name !~ '[[:cntrl:]]');

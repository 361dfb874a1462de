-- Bytes that were refused once, as a fork, and got into the log later, by another way, have a number from then on.
grant update (seq) on quarantine to contextnexus_application;

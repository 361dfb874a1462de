//! The demo tenant on a database that several nodes share, and its token over the years.

use super::fixture::Host;
use crate::support::cluster::{Cluster, DatabaseUrls, execute, number};

fn node(urls: &DatabaseUrls) -> Host {
    let mut host = Host::private();
    host.set("DATABASE_URL", &urls.application);
    host.set("DATABASE_OWNER_URL", &urls.owner);
    host.set("CONTEXTNEXUS_DEMO__ENABLED", "true");
    host
}

fn token(host: &Host) -> String {
    host.credentials()["token"].as_str().unwrap().to_owned()
}

#[test]
fn nodes_that_make_it_at_the_same_moment_make_one() {
    let cluster = Cluster::start();
    for round in 0..3 {
        let urls = cluster.database(&format!("race_{round}"));
        let mut nodes = [node(&urls), node(&urls), node(&urls)];
        nodes.iter_mut().for_each(Host::launch);
        nodes.iter_mut().for_each(Host::wait_until_ready);
        for (what, query) in [
            ("tenant", "select count(*) from tenants"),
            ("user", "select count(*) from users"),
            ("project", "select count(*) from projects"),
        ] {
            assert_eq!(number(&urls.superuser, query), 1, "one {what}");
        }
        assert_eq!(
            number(&urls.superuser, "select count(*) from user_sessions"),
            3,
            "each node has a token of its own"
        );
        let passwords = nodes.iter().filter(|node| node.credentials()["password"] != "").count();
        assert_eq!(passwords, 1, "the node that made the user knows the password");
        for node in &nodes {
            for other in &nodes {
                assert_eq!(other.get_as("/v1/me", &token(node)).0, 200, "a token is good on every node");
            }
        }
    }
}

#[test]
fn a_token_with_less_than_a_month_left_is_renewed_and_the_old_one_goes_on_until_its_end() {
    let cluster = Cluster::start();
    let urls = cluster.database("renewal");
    let mut host = node(&urls);
    host.start();
    let (first, password) = (token(&host), host.credentials()["password"].clone());
    host.terminate();
    execute(&urls.superuser, "update user_sessions set expires_at = now() + interval '32 days'");
    host.start();
    assert_eq!(token(&host), first, "a month is left");
    host.terminate();
    execute(&urls.superuser, "update user_sessions set expires_at = now() + interval '30 days'");
    host.start();
    let second = token(&host);
    assert_ne!(second, first);
    assert_eq!(host.credentials()["password"], password, "the password stays");
    for token in [&first, &second] {
        assert_eq!(host.get_as("/v1/me", token).0, 200);
    }
    let days = "select extract(day from max(expires_at) - now())::bigint from user_sessions";
    assert!(number(&urls.superuser, days) >= 364, "good for a year");
    host.terminate();
    execute(&urls.superuser, "update user_sessions set revoked_at = now()");
    host.start();
    assert_ne!(token(&host), second, "a revoked one is replaced");
    assert_eq!((host.get_as("/v1/me", &token(&host)).0, host.get_as("/v1/me", &second).0), (200, 401));
}

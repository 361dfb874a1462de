//! Signing in and out, sessions and API tokens over HTTP.

use crate::support::fleet::Fleet;
use crate::support::postgres::TestDatabase;
use crate::support::process::{PATIENCE, eventually};
use crate::support::rest::{Company, PASSWORD, TestApp, login};
use crate::support::server::Options;
use crate::support::world::World;
use contextnexus::origins::Origins;
use contextnexus::proxies::TrustedProxies;
use contextnexus::rest::RestSettings;
use serde_json::{Value, json};

#[actix_web::test]
async fn a_login_gives_a_token_that_is_good_until_logout() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let answer = login(&app, &company, &company.editor).await;
    let token = answer["token"].as_str().unwrap();
    assert_eq!(answer["user"]["email"], "editor@acme.example");
    assert_eq!(answer["tenant"]["slug"], "acme");
    let me = app.get("/v1/me").token(token).send().await.expect(200).json();
    assert_eq!(me["user"]["id"], company.editor.user.to_string());
    assert_eq!(me["session"]["document_id"], serde_json::Value::Null);
    app.post("/v1/auth/logout").token(token).send().await.expect(204);
    assert_eq!(app.get("/v1/me").token(token).send().await.expect(401).code(), "unauthenticated");
    app.get("/v1/me").token(&company.editor.token).send().await.expect(200);
}

#[actix_web::test]
async fn the_tenant_is_found_by_the_domain_of_the_address() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    company.tenant.sql("update tenants set domain = 'acme.example' where id = $1", &[]).await;
    let app = TestApp::start(db.database());
    let body = json!({ "email": "Editor@ACME.example", "password": PASSWORD });
    app.post("/v1/auth/login").json(body).send().await.expect(200);
}

#[actix_web::test]
async fn every_wrong_login_answers_alike() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    company
        .tenant
        .sql("update users set is_active = false where tenant_id = $1 and id = $2", &[company.viewer.user.0])
        .await;
    let mut answers = Vec::new();
    for (tenant, email, password) in [
        ("acme", "editor@acme.example", "wrong password"),
        ("acme", "nobody@acme.example", PASSWORD),
        ("acme", "viewer@acme.example", PASSWORD), // switched off
        ("nowhere", "editor@acme.example", PASSWORD),
        ("", "editor@elsewhere.example", PASSWORD),
        ("a\u{0}b", "editor@acme.example", PASSWORD),
        ("acme", "edi\u{0}tor", PASSWORD),
        ("acme", "editor@acme.example", &"x".repeat(2000)),
    ] {
        let body = json!({ "tenant": tenant, "email": email, "password": password });
        let answer = app.post("/v1/auth/login").json(body).send().await.expect(401);
        assert_eq!(answer.code(), "bad_credentials");
        answers.push(answer.text());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[actix_web::test]
async fn guessing_is_slowed() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let guess = json!({ "tenant": "acme", "email": "editor@acme.example", "password": "a wrong guess" });
    for _ in 0..10 {
        app.post("/v1/auth/login").json(guess.clone()).send().await.expect(401);
    }
    let refused = app.post("/v1/auth/login").json(guess).send().await.expect(429);
    assert_eq!(refused.code(), "too_many_requests");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    login(&app, &company, &company.viewer).await; // others are not
}

#[actix_web::test]
async fn an_account_has_one_count_however_it_is_written() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    company.tenant.sql("update tenants set domain = 'acme.example' where id = $1", &[]).await;
    let app = TestApp::start(db.database());
    for account in ["editor@acme.example", "nobody@acme.example"] {
        let spellings = [
            (json!("acme"), account.to_owned()),
            (json!(" acme"), format!(" {account}")),
            (json!("acme\t"), account.to_uppercase()),
            (json!(""), account.to_owned()),
            (Value::Null, account.to_owned()),
        ];
        let mut answers = Vec::new();
        for (tenant, email) in spellings.iter().cycle().take(15) {
            let guess = json!({ "tenant": tenant, "email": email, "password": "a wrong guess" });
            answers.push(app.post("/v1/auth/login").json(guess).send().await.status.as_u16());
        }
        // One more attempt comes back every ten seconds.
        assert!(answers.iter().filter(|status| **status == 401).count() < 13, "{account}: {answers:?}");
        assert!(answers[..10].iter().all(|status| *status == 401), "{account}: {answers:?}");
    }
}

#[actix_web::test]
async fn strangers_who_guess_do_not_lock_the_owner_out() {
    let db = TestDatabase::create().await;
    Company::found(&db, "acme").await;
    // Every request of a test comes from 192.0.2.1.
    let trusted_proxies = TrustedProxies::parse(&["192.0.2.0/24".into()]).unwrap();
    let settings = RestSettings { trusted_proxies, ..RestSettings::default() };
    let app = TestApp::with(db.database(), settings.clone(), Origins::new(&[], &[], "", true));
    let log_in = async |app: &TestApp, account: &str, from: &str, cookie: &str, password: &str| {
        let email = format!("{account}@acme.example");
        let body = json!({ "tenant": "acme", "email": email, "password": password, "cookie": true });
        let call = app.post("/v1/auth/login").json(body).header("x-forwarded-for", from).header("cookie", cookie);
        let answer = call.send().await;
        let cookies = answer.headers.get_all("set-cookie").filter_map(|value| value.to_str().ok());
        let device = cookies.filter_map(|cookie| cookie.split(';').next()).find(|cookie| cookie.contains("-device="));
        (answer.status.as_u16(), device.unwrap_or_default().to_owned())
    };
    let exhaust = async |app: &TestApp, from: &str, cookie: &str| {
        let mut guesses = 0;
        while log_in(app, "editor", from, cookie, "a wrong guess").await.0 == 401 {
            guesses += 1;
            assert!(guesses < 100, "guessing from {from} with {cookie:?} is not slowed");
        }
        assert!(guesses >= 10);
    };
    let (home, cafe, stranger) = ("198.51.100.7", "198.51.100.8", "203.0.113.5");
    let (status, device) = log_in(&app, "editor", home, "", PASSWORD).await;
    assert!(status == 200 && device.len() > 90, "{status} {device}");
    let (_, of_another) = log_in(&app, "viewer", home, "", PASSWORD).await;

    exhaust(&app, stranger, "").await;
    assert_eq!(log_in(&app, "editor", cafe, "", PASSWORD).await.0, 429, "whoever is not known is slowed");
    let forged = device.replace(&device[device.len() - 64..], &"0".repeat(64));
    for (cookie, what) in [(forged, "a forged device"), (of_another, "somebody else's device")] {
        assert_eq!(log_in(&app, "editor", cafe, &cookie, PASSWORD).await.0, 429, "{what}");
    }
    let (status, again) = log_in(&app, "editor", home, "", PASSWORD).await;
    assert_eq!(status, 200, "the network of an earlier login");
    assert_ne!(again, device, "another browser is another device");
    assert_eq!(log_in(&app, "editor", "203.0.113.77", &device, PASSWORD).await.1, device, "the device stays the same");

    // Who is known has a count, too, and each its own.
    exhaust(&app, stranger, &device).await;
    assert_eq!(log_in(&app, "editor", cafe, &device, PASSWORD).await.0, 429, "a device that guesses is slowed");
    exhaust(&app, home, "").await;
    assert_eq!(log_in(&app, "editor", home, &again, PASSWORD).await.0, 200, "and slows no other");

    // Nor does who guesses other accounts from the same network.
    let mut others = 0..1000;
    while log_in(&app, &format!("nobody{}", others.next().unwrap()), home, "", "a wrong guess").await.0 == 401 {}
    assert_eq!(log_in(&app, "editor", home, &again, PASSWORD).await.0, 200, "a device that is known is not");

    // All nodes know it.
    let other = TestApp::with(db.database(), settings, Origins::new(&[], &[], "", true));
    exhaust(&other, stranger, "").await;
    assert_eq!(log_in(&other, "editor", cafe, &device, PASSWORD).await.0, 200);
    let from_home = log_in(&other, "editor", home, "", PASSWORD).await.0;
    assert_eq!(from_home, 200, "also from where one has signed in at another node");
}

#[actix_web::test]
async fn behind_a_proxy_of_ours_guessing_is_counted_by_who_guesses() {
    let db = TestDatabase::create().await;
    Company::found(&db, "acme").await;
    let guess = async |app: &TestApp, from: &str, account: usize| {
        let email = format!("nobody{account}@acme.example");
        let body = json!({ "tenant": "acme", "email": email, "password": "a wrong guess" });
        app.post("/v1/auth/login").json(body).header("x-forwarded-for", from).send().await.status.as_u16()
    };
    let origins = || Origins::new(&[], &[], "", true);
    // Every request of a test comes from 192.0.2.1.
    let trusted_proxies = TrustedProxies::parse(&["192.0.2.0/24".into()]).unwrap();
    let behind = RestSettings { trusted_proxies, ..RestSettings::default() };
    let behind = TestApp::with(db.database(), behind, origins());
    let in_front = TestApp::with(db.database(), RestSettings::default(), origins());
    // One more attempt comes back every second: the answers below come sooner.
    let exhaust = async |app: &TestApp| {
        let mut guesses = 0;
        while guess(app, "198.51.100.7", guesses).await == 401 {
            guesses += 1;
            assert!(guesses < 1000, "guessing many accounts from one address is slowed");
        }
        assert!(guesses >= 100);
    };
    exhaust(&behind).await;
    assert_eq!(guess(&behind, "6.6.6.6, 198.51.100.7", 1001).await, 429, "what stands further left counts nothing");
    assert_eq!(guess(&behind, "198.51.100.8", 1002).await, 401, "others behind the same proxy are not slowed");
    exhaust(&in_front).await;
    assert_eq!(guess(&in_front, "198.51.100.8", 1003).await, 429, "a stranger's word for itself counts nothing");
}

#[actix_web::test]
async fn where_a_client_came_from_is_believed_of_a_proxy_of_ours_alone() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    // Every request of a test comes from 192.0.2.1.
    for (proxies, says) in [
        (vec!["192.0.2.1".to_owned()], ("wss://collab.example/d/", "__Host-contextnexus=")),
        (vec!["192.0.2.9".to_owned()], ("ws://127.0.0.1:8080/d/", "contextnexus=")),
        (vec![], ("ws://127.0.0.1:8080/d/", "contextnexus=")),
    ] {
        let trusted_proxies = TrustedProxies::parse(&proxies).unwrap();
        let settings = RestSettings { trusted_proxies, ..RestSettings::default() };
        let app = TestApp::with(db.database(), settings, Origins::new(&[], &[], "", true));
        let post = |path: &str| {
            app.post(path).header("x-forwarded-proto", "https").header("x-forwarded-host", "collab.example")
        };
        let client = post(&format!("/doc/{}/auth", company.document)).token(&company.editor.token).send().await;
        let url = client.expect(200).json()["url"].as_str().unwrap().to_owned();
        assert!(url.starts_with(says.0), "{proxies:?}: {url}");
        let body = json!({ "tenant": "acme", "email": company.editor.email, "password": PASSWORD, "cookie": true });
        let answer = post("/v1/auth/login").json(body).send().await.expect(200);
        let cookie = answer.header("set-cookie");
        assert!(cookie.starts_with(says.1), "{proxies:?}: {cookie}");
        assert_eq!(cookie.contains("Secure"), says.0.starts_with("wss"), "{cookie}");
    }
}

#[actix_web::test]
async fn a_cookie_counts_only_from_pages_of_ours() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let origins = Origins::new(&["https://app.example".into()], &[], "https://collab.example", false);
    let settings = RestSettings { public_url: "https://collab.example".into(), ..RestSettings::default() };
    let app = TestApp::with(db.database(), settings, origins);
    let body = json!({ "tenant": "acme", "email": company.editor.email, "password": PASSWORD, "cookie": true });
    let foreign = app.post("/v1/auth/login").json(body.clone()).header("origin", "https://evil.example").send().await;
    assert_eq!(foreign.expect(403).code(), "origin_not_allowed");
    let answer =
        app.post("/v1/auth/login").json(body).header("origin", "https://collab.example").send().await.expect(200);
    assert_eq!(answer.json().get("token"), None, "the page's scripts never see it");
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-contextnexus=cnx_"), "{cookie}");
    for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    app.get("/v1/me").header("cookie", cookie).send().await.expect(200);
    let new = json!({ "slug": "from-cookie", "name": "From a cookie" });
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let mut call = app.post("/v1/projects").header("cookie", cookie).json(new.clone());
        if let Some(origin) = origin {
            call = call.header("origin", origin);
        }
        assert_eq!(call.send().await.expect(403).code(), "origin_not_allowed", "{origin:?}");
    }
    let call = app.post("/v1/projects").header("cookie", cookie).json(new).header("origin", "https://app.example");
    call.send().await.expect(201);
    let out =
        app.post("/v1/auth/logout").header("cookie", cookie).header("origin", "https://collab.example").send().await;
    assert!(out.expect(204).header("set-cookie").contains("Max-Age=0"));
    app.get("/v1/me").header("cookie", cookie).send().await.expect(401);
}

#[actix_web::test]
async fn sessions_are_seen_and_ended_by_their_own_user() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(login(&app, &company, &company.editor).await["token"].as_str().unwrap().to_owned());
    }
    let mine = &company.editor.token;
    let page = app.get("/v1/user-sessions?limit=3").token(mine).send().await.expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 3);
    let next = format!("/v1/user-sessions?limit=3&cursor={}", page["next_cursor"].as_str().unwrap());
    let rest = app.get(&next).token(mine).send().await.expect(200).json();
    assert_eq!((rest["items"].as_array().unwrap().len(), rest["next_cursor"].is_null()), (1, true));

    let newest = page["items"][0]["id"].as_str().unwrap();
    let path = format!("/v1/user-sessions/{newest}");
    assert_eq!(app.delete(&path).token(&company.boss.token).send().await.expect(404).code(), "not_found");
    app.delete(&path).token(mine).send().await.expect(204);
    app.get("/v1/me").token(&tokens[2]).send().await.expect(401);
    app.get("/v1/me").token(&tokens[1]).send().await.expect(200);

    let ended = app.delete("/v1/user-sessions").token(mine).send().await.expect(200).json();
    assert_eq!(ended["revoked"], 2);
    app.get("/v1/me").token(&tokens[1]).send().await.expect(401);
    app.get("/v1/me").token(mine).send().await.expect(200);
    app.delete("/v1/user-sessions?keep_current=false").token(mine).send().await.expect(200);
    app.get("/v1/me").token(mine).send().await.expect(401);
}

#[actix_web::test]
async fn api_tokens_are_for_administrators_and_end_when_revoked() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let wanted = json!({ "name": "import", "user_id": company.editor.user, "ttl_s": 3600 });
    assert_eq!(
        app.post("/v1/tokens").token(&company.admin.token).json(wanted.clone()).send().await.expect(403).code(),
        "forbidden"
    );
    let made = app.post("/v1/tokens").token(&company.boss.token).json(wanted).send().await.expect(201).json();
    let token = made["token"].as_str().unwrap();
    let me = app.get("/v1/me").token(token).send().await.expect(200).json();
    assert_eq!(me["user"]["id"], company.editor.user.to_string());
    let listed = app.get("/v1/tokens").token(&company.boss.token).send().await.expect(200);
    assert!(listed.text().contains(made["id"].as_str().unwrap()) && !listed.text().contains(token));
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    app.delete(&path).token(&company.editor.token).send().await.expect(403);
    app.delete(&path).token(&company.boss.token).send().await.expect(204);
    app.get("/v1/me").token(token).send().await.expect(401);
    for (body, code) in [
        (json!({ "name": "" }), "invalid_field"),
        (json!({ "name": "x", "ttl_s": 1 }), "invalid_field"),
        (json!({ "name": "x", "scope": "all" }), "malformed_request"),
        (json!({ "name": "a\u{0}" }), "invalid_field"),
        (json!({ "name": "x", "user_id": uuid::Uuid::nil() }), "not_found"),
    ] {
        assert_eq!(
            app.post("/v1/tokens").token(&company.boss.token).json(body.clone()).send().await.code(),
            code,
            "{body}"
        );
    }
}

/// Of the server's own process, whose log nothing else in a test can disturb; everything that any of its parts would say.
#[test]
fn no_token_and_no_password_stands_in_the_log() {
    let everything = "trace,sqlx=trace,actix_server=trace,hyper=trace,rustls=trace";
    let environment = vec![("CONTEXTNEXUS_TELEMETRY__LOG".to_owned(), everything.to_owned())];
    let world = World::start_with(Options { environment, ..Options::default() });
    let mut fleet = Fleet::start();
    let credentials = world.server.credentials();
    let mut post = |path: &str, body: Value, status: u16| {
        let answer = world.http(&mut fleet, "POST", path, json!({ "json": body }));
        assert_eq!(answer["status"], status, "{path}: {answer}");
        answer["json"].clone()
    };
    let (tenant, email, password) = (&credentials["tenant"], &credentials["email"], &credentials["password"]);
    let mut secrets = vec![json!("a wrong secret"), password.clone(), credentials["token"].clone()];
    let wrong = json!({ "tenant": tenant, "email": email, "password": "a wrong secret" });
    post("/v1/auth/login", wrong, 401);
    let right = json!({ "tenant": tenant, "email": email, "password": password });
    secrets.push(post("/v1/auth/login", right, 200)["token"].clone());
    post("/doc/new", json!({ "docId": "logged" }), 200);
    let ticket = format!("/v1/documents/{}/ticket", world.document("logged"));
    secrets.push(post(&ticket, json!({}), 201)["ticket"].clone());
    secrets.push(post("/doc/logged/auth", json!({ "authorization": "full" }), 200)["token"].clone());
    // The last request: once its line is there, so are those of all before it.
    secrets.push(post("/v1/tokens", json!({ "name": "x" }), 201)["token"].clone());
    eventually(PATIENCE, "the log is heard", || {
        world.server.log().iter().any(|line| line.contains("made an API token"))
    });
    let log = world.server.log().join("\n");
    assert!(log.contains("TRACE") && log.contains("answered with 401"), "not everything was said");
    for secret in secrets {
        // `cnx_{tenant}_{secret}`, and the secret may hold further underscores.
        let secret = secret.as_str().expect("a secret").splitn(3, '_').last().unwrap();
        assert!(secret.len() > 10 && !log.contains(secret), "a secret stands in the log");
    }
}

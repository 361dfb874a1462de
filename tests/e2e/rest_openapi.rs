//! The description of the interface, the page that shows it, and what stands around every answer.

use crate::support::postgres::TestDatabase;
use crate::support::rest::TestApp;
use actix_web::http::Method;
use contextnexus::origins::Origins;
use contextnexus::rest::RestSettings;
use serde_json::Value;
use std::collections::BTreeSet;

fn app(db: &TestDatabase) -> TestApp {
    TestApp::start(db.database())
}

#[actix_web::test]
async fn the_description_is_whole() {
    let db = TestDatabase::create().await;
    let api = app(&db).get("/openapi.json").send().await.expect(200).json();
    assert_eq!(api["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{what} says nothing");
            assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{what}: {}", operation["tags"]);
            assert!(ids.insert(operation["operationId"].to_string()), "{what}: the operationId is another's, too");
            let needs_no_token = operation["tags"][0] == "Server" || path == "/v1/auth/login";
            assert_eq!(operation.get("security").is_none(), needs_no_token, "{what}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{what} never succeeds");
            assert!(responses.contains_key("401") || operation["tags"][0] == "Server", "{what}");
            for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(
                    parameters.iter().any(|p| p["name"] == name && p["in"] == "path" && p["required"] == true),
                    "{what} does not describe {name}"
                );
            }
        }
    }
    each_reference(&api, &mut |reference| {
        let found = api.pointer(reference.strip_prefix('#').unwrap());
        assert!(found.is_some(), "{reference} leads nowhere");
    });
}

fn each_reference(value: &Value, tell: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(reference) if key == "$ref" => tell(reference),
                    value => each_reference(value, tell),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_reference(item, tell)),
        _ => {}
    }
}

#[actix_web::test]
async fn the_reader_page_loads_nothing_from_elsewhere() {
    let db = TestDatabase::create().await;
    let app = app(&db);
    let page = app.get("/docs").send().await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    for path in ["/docs", "/docs/page.js", "/docs/page.css"] {
        let text = app.get(path).send().await.expect(200).text();
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("\"//"), "{path}");
        assert!(!text.contains("innerHTML"), "{path}");
    }
}

#[actix_web::test]
async fn every_answer_binds_the_browser_and_names_its_request() {
    let db = TestDatabase::create().await;
    let app = app(&db);
    for path in ["/docs", "/openapi.json", "/v1/me", "/nowhere"] {
        let answer = app.get(path).header("x-request-id", "mine-1").send().await;
        for (name, value) in [
            ("x-request-id", "mine-1"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.header(name), value, "{path}: {name}");
        }
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
    }
    let fresh = app.get("/v1/me").header("x-request-id", "not a plain one").send().await;
    assert!(uuid::Uuid::try_parse(fresh.header("x-request-id")).is_ok());
    assert_eq!(app.get("/nowhere").send().await.expect(404).code(), "not_found");
}

#[actix_web::test]
async fn pages_of_others_may_read_only_where_the_settings_name_them() {
    let db = TestDatabase::create().await;
    let origins = Origins::new(&[], &["https://app.example".into()], "", false);
    let app = TestApp::with(db.database(), RestSettings::default(), origins);
    let ask = |method: Method, origin: &str| {
        app.call(method, "/v1/documents").header("origin", origin).header("access-control-request-method", "POST")
    };
    let allowed = ask(Method::OPTIONS, "https://app.example").send().await.expect(204);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example");
    assert!(allowed.header("access-control-allow-headers").contains("authorization"));
    assert_eq!(allowed.header("access-control-allow-credentials"), "");
    let refused = ask(Method::OPTIONS, "https://evil.example").send().await.expect(403);
    assert_eq!(refused.header("access-control-allow-origin"), "");
    let answer = ask(Method::GET, "https://app.example").send().await.expect(401);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(ask(Method::GET, "https://evil.example").send().await.header("access-control-allow-origin"), "");
}

#[actix_web::test]
async fn a_page_of_any_origin_calls_with_a_token_of_its_own() {
    let db = TestDatabase::create().await;
    let origin = "https://elsewhere.example";
    let read_by = |answer: &str| (answer == origin, answer.is_empty());
    for (checked, expected) in [(false, (true, false)), (true, (false, true))] {
        let origins = Origins::new(&[], &[], "", false).checking_tokens(checked);
        let app = TestApp::with(db.database(), RestSettings::default(), origins);
        for path in ["/v1/documents", "/doc/new", "/d/a/as-update"] {
            let may_i = app.call(Method::OPTIONS, path).header("origin", origin);
            let may_i = may_i.header("access-control-request-method", "POST");
            let may_i = may_i.header("access-control-request-headers", "Content-Type, Authorization").send().await;
            let may_i = may_i.expect(if checked { 403 } else { 204 });
            assert_eq!(read_by(may_i.header("access-control-allow-origin")), expected, "{path}");
            let answer =
                app.call(Method::POST, path).header("origin", origin).header("authorization", "Bearer cnx_wrong");
            let answer = answer.send().await;
            assert_eq!(read_by(answer.header("access-control-allow-origin")), expected, "{path}");
            assert_eq!(answer.header("access-control-allow-credentials"), "", "cookies never cross");
        }
        // What needs no token is not read across origins by a made-up one: the server may be one that the page itself
        // cannot reach.
        let metrics = app.get("/nowhere").header("origin", origin).header("authorization", "Bearer x").send().await;
        assert_eq!(metrics.header("access-control-allow-origin"), "");
        let login = app.call(Method::OPTIONS, "/v1/auth/login").header("origin", origin);
        let login = login.header("access-control-request-method", "POST");
        let login = login.header("access-control-request-headers", "content-type").send().await;
        assert_eq!(login.expect(403).code(), "origin_not_allowed", "without a token only listed origins ask");
    }
}

/// Every path that `src` mounts, read from the sources, with its method.
fn mounted() -> Vec<(String, String)> {
    fn walk(folder: &std::path::Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                // Tests mount servers of their own.
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                if path.components().all(|part| part.as_os_str() != "tests") {
                    routes_in(code, found);
                }
            }
        }
    }
    fn routes_in(code: &str, found: &mut Vec<(String, String)>) {
        for method in ["get", "post", "put", "patch", "delete", "head"] {
            for rest in code.split(&format!("\n#[{method}(\"")).skip(1) {
                found.push((method.to_owned(), described(rest.split('"').next().unwrap())));
            }
        }
        for rest in code.split(".route(\"").skip(1) {
            let (path, rest) = rest.split_once('"').unwrap();
            let method = rest.split("web::").nth(1).unwrap().split('(').next().unwrap();
            found.push((method.to_owned(), described(path)));
        }
    }
    /// As the description writes it: names there may have slashes, which it cannot say.
    fn described(path: &str) -> String {
        path.replace("{id:.+}", "{id}").replace("{again:.+}", "{again}")
    }
    let mut found = Vec::new();
    walk(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 50, "{found:?}");
    found
}

/// Left out of the description: the page, the description itself, the sockets, which speak their clients' protocols, and calls of older
/// Y-Sweet clients that are there under another name too.
fn is_beside(method: &str, path: &str) -> bool {
    ["/open/", "/assets/", "/docs", "/openapi.json", "/yjs/", "/collab", "/doc/ws/"].iter().any(|p| path.starts_with(p))
        || ["/", "/d/{id}/ws/{again}", "/doc/{id}/as-update", "/doc/{id}/update"].contains(&path)
        || (method, path) == ("get", "/check_store")
}

#[actix_web::test]
async fn every_route_that_is_mounted_is_described() {
    let db = TestDatabase::create().await;
    let api = app(&db).get("/openapi.json").send().await.expect(200).json();
    let routes = mounted();
    for (method, path) in &routes {
        let operation = api["paths"].get(path).and_then(|item| item.get(method));
        assert_eq!(operation.is_none(), is_beside(method, path), "{method} {path}");
    }
    for (path, item) in api["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            assert!(
                routes.contains(&(method.clone(), path.clone())),
                "{method} {path} is described and mounted nowhere"
            );
        }
    }
}

#[actix_web::test]
async fn a_known_path_tells_its_methods_to_whoever_comes_with_another() {
    let db = TestDatabase::create().await;
    let app = app(&db);
    for (method, path) in mounted() {
        let place = path.replace("{room:.*}", "a/b").replace(['{', '}'], "x");
        let answer = app.call("PUT".parse().unwrap(), &place).send().await.expect(405);
        let allow: Vec<_> = answer.header("allow").split(", ").map(str::to_lowercase).collect();
        assert!(allow.contains(&method), "{path} takes {method}, and says {allow:?}");
        assert_eq!(answer.code(), "method_not_allowed");
    }
    let answer = app.delete("/v1/projects").send().await.expect(405);
    assert_eq!(answer.header("allow"), "GET, POST");
    for nowhere in ["/v1", "/v1/nowhere", "/v1/documents/x/nowhere", "/doc", "/livex"] {
        for method in [Method::GET, Method::PUT] {
            let answer = app.call(method, nowhere).send().await.expect(404);
            assert_eq!((answer.code().as_str(), answer.header("allow")), ("not_found", ""), "{nowhere}");
        }
    }
}

#[test]
fn the_command_line_prints_the_description() {
    let mut command = crate::support::process::tied(crate::support::server::binary());
    let output = command.arg("openapi").env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, serde_json::to_value(contextnexus::rest::openapi()).unwrap());
}

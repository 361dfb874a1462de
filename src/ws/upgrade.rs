//! The upgrade requests of the three dialects: who may open a socket at all. Whether the token is good, and for what, the
//! session says later, on the socket: a status code at the upgrade is invisible to browsers, a close code is not.

use super::admission::NoSeat;
use super::link::{Link, Slot, label};
use super::socket::{LetGo, Socket, head_of};
use super::watch::Watch;
use super::{Sockets, credentials, pump, writer};
use crate::cookies;
use crate::origins::{Admits, Refusal};
use crate::paths;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::{Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws::handshake_with_protocols;
use contextnexus_actors::causes::Cause;
use contextnexus_actors::ids::SessionId;
use contextnexus_actors::outbox::Outbox;
use contextnexus_actors::protocol::Dialect;
use contextnexus_actors::report;
use contextnexus_actors::session::Opening;
use std::sync::Arc;

/// Adds the routes of the dialects. Called once per worker; the server needs [`super::on_connect`] too.
pub fn configure(sockets: Arc<Sockets>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        config
            .app_data(Data::from(sockets))
            .app_data(Watch::default())
            .route("/yjs/{room:.*}", web::get().to(y_websocket))
            .route("/collab", web::get().to(hocuspocus))
            .route("/collab/", web::get().to(hocuspocus))
            .route("/d/{id:.+}/ws/{again:.+}", web::get().to(y_sweet))
            .route("/doc/ws/{id:.+}", web::get().to(y_sweet_deprecated));
    }
}

/// `GET /yjs/{room}`
async fn y_websocket(request: HttpRequest, payload: Payload, sockets: Data<Sockets>) -> HttpResponse {
    let room = paths::between(request.path(), "/yjs/", "");
    open(&request, payload, &sockets, Dialect::YWebsocket, room)
}

/// `GET /collab`: rooms are named in the messages.
async fn hocuspocus(request: HttpRequest, payload: Payload, sockets: Data<Sockets>) -> HttpResponse {
    open(&request, payload, &sockets, Dialect::Hocuspocus, None)
}

/// `GET /d/{id}/ws/{id}`: the client appends the id once more to the address that it was given.
async fn y_sweet(request: HttpRequest, payload: Payload, sockets: Data<Sockets>) -> HttpResponse {
    let room = request.path().strip_prefix("/d/").and_then(paths::y_sweet);
    open(&request, payload, &sockets, Dialect::YSweet, room)
}

/// `GET /doc/ws/{id}`, as older Y-Sweet clients have it.
async fn y_sweet_deprecated(request: HttpRequest, payload: Payload, sockets: Data<Sockets>) -> HttpResponse {
    let room = paths::between(request.path(), "/doc/ws/", "");
    open(&request, payload, &sockets, Dialect::YSweet, room)
}

fn open(
    request: &HttpRequest,
    payload: Payload,
    sockets: &Data<Sockets>,
    dialect: Dialect,
    room: Option<String>,
) -> HttpResponse {
    match try_open(request, payload, sockets, dialect, room) {
        Ok(response) => response,
        Err(refused) => {
            metrics::counter!("contextnexus_ws_refused_upgrades_total", "reason" => refused.label()).increment(1);
            let reason = refused.label();
            report!(refused.cause(), dialect = label(dialect), reason, "upgrade refused: {reason}");
            refused.response()
        }
    }
}

/// Cheap refusals first: a node under a flood of upgrades answers with as little work as it can.
fn try_open(
    request: &HttpRequest,
    payload: Payload,
    sockets: &Data<Sockets>,
    dialect: Dialect,
    room: Option<String>,
) -> Result<HttpResponse, Refused> {
    if !sockets.is_accepting.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Refused::Draining);
    }
    let mut handshake =
        handshake_with_protocols(request, &[credentials::SUBPROTOCOL]).map_err(|_| Refused::NoWebSocket)?;
    if room.is_none() && dialect != Dialect::Hocuspocus {
        return Err(Refused::BadRoom);
    }
    let with_cookie = check_origin(request, sockets)?;
    let seat = sockets.admission.admit(sockets.settings.trusted_proxies.client_of(request)).map_err(Refused::NoSeat)?;
    let slot = request.conn_data::<Slot>().ok_or(Refused::NoDescriptor)?;
    let watch = request.app_data::<Watch>().ok_or(Refused::NoDescriptor)?;
    let socket = Socket::new(slot.take().ok_or(Refused::NoDescriptor)?);

    let id = SessionId(sockets.clock.fresh_id());
    let outbox = Arc::new(Outbox::new(sockets.settings.outbox_bytes_max));
    let token = credentials::token(request, with_cookie);
    if token.is_none() && !with_cookie {
        tell_of_cookie(request, sockets, dialect);
    }
    let link = Link::new((id, dialect), Arc::clone(&outbox), (socket, seat), Arc::clone(&**sockets), watch);
    tracing::debug!(session.id = %id, dialect = label(dialect), "connection opened");
    let authentication = Arc::clone(&link.authentication);
    let session = sockets.sessions.start(Opening { session: id, dialect, room, token, outbox, authentication });
    link.belongs_to(&session);
    let response = handshake.finish();
    let head = head_of(&response);
    let (let_go, gone) = LetGo::new();
    actix_web::rt::spawn(async move {
        gone.notified().await; // until then actix-http has the socket
        actix_web::rt::spawn(writer::run(link.clone(), head));
        pump::run(payload, link, session).await;
    });
    Ok(response.set_body(BoxBody::new(let_go)))
}

/// Whether the cookie counts: only for pages of ours, and not for programs, which send no origin. A token counts from
/// everywhere, unless the operator has its origin checked.
fn check_origin(request: &HttpRequest, sockets: &Sockets) -> Result<bool, Refused> {
    match sockets.origins.admits(request.headers()) {
        Admits::Cookie => Ok(true),
        Admits::Token => Ok(false),
        Admits::Nothing => {
            sockets.origins.tell(request.headers(), Refusal::Socket);
            Err(Refused::Origin)
        }
    }
}

/// A page whose users are signed in here, and whose cookie does not count: its developer should hear why.
fn tell_of_cookie(request: &HttpRequest, sockets: &Sockets, dialect: Dialect) {
    if cookies::token(request.headers()).is_some() {
        let refusal = match dialect {
            Dialect::Hocuspocus => Refusal::CookieIgnored,
            Dialect::YWebsocket | Dialect::YSweet => Refusal::SocketWithCookie,
        };
        sockets.origins.tell(request.headers(), refusal);
    }
}

/// Why no socket was opened.
#[derive(Debug)]
enum Refused {
    Draining,
    NoWebSocket,
    BadRoom,
    Origin,
    NoSeat(NoSeat),
    NoDescriptor,
}

impl Refused {
    fn label(&self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::NoWebSocket => "no_websocket",
            Self::BadRoom => "bad_room",
            Self::Origin => "origin",
            Self::NoSeat(NoSeat::Node) => "node_full",
            Self::NoSeat(NoSeat::Address) => "address_full",
            Self::NoDescriptor => "no_descriptor",
        }
    }

    fn cause(&self) -> Cause {
        match self {
            Self::Draining | Self::NoWebSocket | Self::BadRoom => Cause::Client,
            Self::Origin => Cause::Ended,
            Self::NoSeat(_) | Self::NoDescriptor => Cause::Busy,
        }
    }

    fn response(&self) -> HttpResponse {
        let (status, title) = match self {
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "this server accepts no new connections"),
            Self::NoSeat(_) => (StatusCode::SERVICE_UNAVAILABLE, "there are too many connections"),
            Self::NoDescriptor => (StatusCode::SERVICE_UNAVAILABLE, "this server can open no more sockets"),
            Self::NoWebSocket => (StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket"),
            Self::BadRoom => (StatusCode::BAD_REQUEST, "this is no document's address"),
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "pages of this origin may not connect; server.cors_origins lists those that may",
            ),
        };
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, "5"));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            response.insert_header((header::UPGRADE, "websocket"));
        }
        let problem = serde_json::json!({ "status": status.as_u16(), "title": title, "code": self.label() });
        response.content_type("application/problem+json").body(problem.to_string())
    }
}

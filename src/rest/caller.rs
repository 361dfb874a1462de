//! Who calls.

use super::{ApiError, Rest};
use crate::cookies;
use crate::origins::Refusal;
use actix_web::dev::Payload;
use actix_web::http::{Method, header};
use actix_web::{FromRequest, HttpRequest, web};
use contextnexus_actors::access::{Caller, Scope, Token};
use contextnexus_actors::ids::DocumentId;
use futures_util::future::LocalBoxFuture;
use std::ops::Deref;

/// A caller whose token was checked. Taken from `Authorization: Bearer`, else from the cookie; what a cookie authenticates and may
/// change something needs an allowed `Origin`.
#[derive(Clone, Debug)]
pub(super) struct Authenticated(Caller);

impl Deref for Authenticated {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl Authenticated {
    /// A caller that acts for its user, not only in one document.
    pub(super) fn user(&self) -> Result<&Caller, ApiError> {
        match self.scope {
            Scope::User => Ok(&self.0),
            Scope::Document(..) => Err(ApiError::Forbidden("this token reaches one document only")),
        }
    }

    /// An administrator of the tenant.
    pub(super) fn tenant_admin(&self) -> Result<&Caller, ApiError> {
        let caller = self.user()?;
        if caller.tenant_admin {
            Ok(caller)
        } else {
            Err(ApiError::Forbidden("this is for administrators of the tenant"))
        }
    }

    /// A caller that may ask for this document by its id at all; what it may do there is another question.
    pub(super) fn reaches(&self, document: DocumentId) -> Result<&Caller, ApiError> {
        match self.scope {
            Scope::Document(own, _) if own != document => Err(ApiError::NotFound("document")),
            _ => Ok(&self.0),
        }
    }
}

impl FromRequest for Authenticated {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let rest = request.app_data::<web::Data<Rest>>().ok_or_else(|| ApiError::internal("nothing is mounted"))?;
            let token = match bearer(&request)? {
                Some(token) => token,
                None => from_cookie(&request, rest)?,
            };
            Ok(Self(rest.authority.authenticate(&token).await?))
        })
    }
}

fn bearer(request: &HttpRequest) -> Result<Option<Token>, ApiError> {
    let Some(value) = request.headers().get(header::AUTHORIZATION) else { return Ok(None) };
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(ApiError::Unauthenticated)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(Some(Token(token.trim().to_owned())))
    } else {
        Err(ApiError::Unauthenticated)
    }
}

fn from_cookie(request: &HttpRequest, rest: &Rest) -> Result<Token, ApiError> {
    let token = cookies::token(request.headers()).ok_or(ApiError::Unauthenticated)?;
    let harmless = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !harmless && !rest.origins.allows_cookie(request.headers()) {
        rest.origins.tell(request.headers(), Refusal::Cookie);
        return Err(ApiError::OriginNotAllowed);
    }
    Ok(token)
}

//! Bearer tokens: `cnx_{tenant}_{secret}`.
//!
//! The tenant stands in the token, so that even looking one up happens inside a transaction bound to it. The secret is 256
//! random bits; only a hash is stored. A fast hash does: nobody guesses 256 bits, so there is nothing for a slow one to slow down.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contextnexus_actors::access::Token;
use contextnexus_actors::ids::TenantId;
use rand::TryRng as _;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

const SECRET_BYTES: usize = 32;
/// Behind `cnx_`, 32 hexadecimal digits and `_`.
const SECRET_AT: usize = 4 + 32 + 1;
/// 32 bytes in Base64 are 43 characters.
const TOKEN_LENGTH: usize = SECRET_AT + 43;

/// A token of this tenant that nobody has seen.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn fresh(tenant: TenantId) -> Result<Token, NoRandomness> {
    let mut secret = [0_u8; SECRET_BYTES];
    rand::rngs::SysRng.try_fill_bytes(&mut secret).map_err(|_| NoRandomness)?;
    Ok(Token(format!("cnx_{}_{}", tenant.0.simple(), URL_SAFE_NO_PAD.encode(secret))))
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// The tenant in whose transaction the token may be looked up, and what is stored of it. `None` for what is no token at all.
#[must_use]
pub fn parse(token: &Token) -> Option<(TenantId, TokenHash)> {
    if token.0.len() != TOKEN_LENGTH {
        return None;
    }
    let (tenant, secret) = token.0.strip_prefix("cnx_")?.split_at_checked(32)?;
    let secret = URL_SAFE_NO_PAD.decode(secret.strip_prefix('_')?).ok()?;
    if secret.len() != SECRET_BYTES || tenant.bytes().any(|b| b.is_ascii_uppercase()) {
        return None; // one spelling per token
    }
    Some((TenantId(Uuid::try_parse(tenant).ok()?), hash(token)))
}

/// What the database keeps of a token.
pub type TokenHash = [u8; 32];

/// SHA-256 of the secret part as it is written: what `user_sessions.token_hash` holds.
#[must_use]
pub fn hash(token: &Token) -> TokenHash {
    let secret = token.0.as_bytes().get(SECRET_AT..).unwrap_or_default();
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_token_names_its_tenant_and_is_never_repeated() {
        let tenant = TenantId(Uuid::from_u128(7));
        let (one, two) = (fresh(tenant).unwrap(), fresh(tenant).unwrap());
        assert_ne!(one, two);
        assert_eq!(parse(&one), Some((tenant, hash(&one))));
        assert_eq!(one.0.len(), TOKEN_LENGTH);
    }

    #[test]
    fn what_is_no_token_is_not_looked_up() {
        let tenant = "0".repeat(32);
        let secret = "A".repeat(43);
        assert!(parse(&Token(format!("cnx_{tenant}_{secret}"))).is_some());
        for text in [
            String::new(),
            "cnx_".into(),
            format!("CNX_{tenant}_{secret}"),
            format!("cnx_{tenant}_{}", "A".repeat(42)),
            format!("cnx_{tenant}_{}=", "A".repeat(42)),
            format!("cnx_{tenant}_{}B", "A".repeat(42)), // bits that no 32 bytes have
            format!("cnx_{}_{secret}", "A".repeat(32)),
            format!("cnx_{}é_{secret}", "a".repeat(30)),
        ] {
            assert!(parse(&Token(text.clone())).is_none(), "{text}");
        }
    }
}

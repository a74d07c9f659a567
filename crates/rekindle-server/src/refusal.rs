//! How the engine's outcomes and errors are told over HTTP.

use rekindle::{
    definition::{DefinitionProblems, Violation},
    engine::{Engine, Error, Issued, Standing, TokenRefusal},
    rotation::Expiry,
};

use crate::{
    metrics::{Metrics, RefreshOutcome},
    problem::{Code, FieldProblem, Members, Problem},
};

/// Counts what came of a refresh.
pub(crate) fn count_refresh(metrics: &Metrics, outcome: Result<Result<Issued, &TokenRefusal>, &Error>) {
    metrics.refresh(match outcome {
        Ok(Ok(Issued::Started | Issued::Advanced)) => RefreshOutcome::Advanced,
        Ok(Ok(Issued::Reissued)) => RefreshOutcome::Reissued,
        Ok(Ok(Issued::FastForwarded)) => RefreshOutcome::FastForwarded,
        Ok(Err(refusal)) => match refusal {
            TokenRefusal::Malformed => RefreshOutcome::Malformed,
            TokenRefusal::ScopeMismatch | TokenRefusal::AccessExpired => RefreshOutcome::Invalid,
            TokenRefusal::Expired(_) => RefreshOutcome::Expired,
            TokenRefusal::Revoked(_) => RefreshOutcome::Revoked,
            TokenRefusal::ProofRequired(_) => RefreshOutcome::ProofRequired,
            TokenRefusal::Superseded(_) => RefreshOutcome::Superseded,
            TokenRefusal::Theft { kind, .. } => {
                metrics.theft(*kind);
                RefreshOutcome::Theft
            }
        },
        Err(Error::Store(_) | Error::Log(_) | Error::Key(_)) => RefreshOutcome::Unavailable,
        Err(_) => RefreshOutcome::Invalid,
    });
}

impl From<TokenRefusal> for Problem {
    fn from(refusal: TokenRefusal) -> Self {
        let code = token_code(&refusal);
        match refusal {
            TokenRefusal::Malformed => {
                Self::new(code, "this server did not issue this token, or it was damaged; sign in again")
            }
            TokenRefusal::ScopeMismatch => {
                Self::new(code, "the token belongs to another product, environment or definition")
            }
            TokenRefusal::AccessExpired => Self::new(code, "refresh the session and repeat the request"),
            TokenRefusal::Expired(expiry) => {
                let detail = match expiry {
                    Expiry::Idle => "the session was not refreshed for its idle timeout; sign in again",
                    Expiry::Absolute => "the session's lifetime is over; sign in again",
                };
                Self::new(code, detail).with(Members { which: Some(expiry), ..Members::default() })
            }
            TokenRefusal::Revoked(_) => Self::new(code, "the session was ended; sign in again"),
            TokenRefusal::ProofRequired(standing) => {
                Self::new(code, "send a proof with the opening of this generation; without one, sign in again")
                    .with(told(standing))
            }
            TokenRefusal::Superseded(standing) => {
                Self::new(code, "the session has moved on; read your storage again and go on from this generation")
                    .with(told(standing))
            }
            TokenRefusal::Theft { kind, session_id, user_id } => {
                Self::new(code, "two parties used this session; sign in again").with(Members {
                    session_id: Some(session_id),
                    user_id: Some(user_id),
                    kind: Some(kind),
                    ..Members::default()
                })
            }
        }
    }
}

/// The answer to a refused refresh token. Terminal ones name the token's session and generation, so that a client clears only what the
/// answer is about.
pub fn refused(engine: &Engine, refresh_token: &str, refusal: TokenRefusal) -> Problem {
    let terminal = matches!(refusal, TokenRefusal::Expired(_) | TokenRefusal::Revoked(_) | TokenRefusal::Theft { .. });
    let problem = Problem::from(refusal);
    match engine.presented(refresh_token).filter(|_| terminal) {
        Some((session_id, generation)) => problem.about(session_id, generation),
        None => problem,
    }
}

/// The contract's code of a refused token.
pub fn token_code(refusal: &TokenRefusal) -> Code {
    match refusal {
        TokenRefusal::Malformed => Code::TokenMalformed,
        TokenRefusal::ScopeMismatch => Code::TokenScopeMismatch,
        TokenRefusal::AccessExpired => Code::AccessTokenExpired,
        TokenRefusal::Expired(_) => Code::SessionExpired,
        TokenRefusal::Revoked(_) => Code::SessionRevoked,
        TokenRefusal::ProofRequired(_) => Code::ProofRequired,
        TokenRefusal::Superseded(_) => Code::Superseded,
        TokenRefusal::Theft { .. } => Code::TokenTheftDetected,
    }
}

fn told(standing: Standing) -> Members {
    Members {
        session_id: Some(standing.session_id),
        generation: Some(standing.generation),
        presented_generation: Some(standing.presented_generation),
        commitment: Some(standing.commitment).filter(|c| c.is_some()),
        ..Members::default()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Invalid { field, problem } => return Self::field(*field, problem.clone()),
            Error::ProductNotFound(_) => Code::ProductNotFound,
            Error::EnvironmentNotFound(_) => Code::EnvironmentNotFound,
            Error::DefinitionNotFound(_) => Code::DefinitionNotFound,
            Error::SessionNotFound(_) => Code::SessionNotFound,
            Error::UserNotFound => Code::UserNotFound,
            Error::ApiKeyNotFound(_) => Code::NotFound,
            Error::EnvironmentInactive(_) => Code::EnvironmentInactive,
            Error::Conflict(_) | Error::SessionEnded(_) => Code::Conflict,
            Error::VersionMismatch { .. } => Code::VersionMismatch,
            Error::DataInvalid(violations) => return data_invalid(violations),
            Error::SelectorUnresolved(_) => Code::SelectorUnresolved,
            Error::MaxSessionsReached { .. } => Code::MaxSessionsReached,
            Error::IdempotencyMismatch => Code::IdempotencyMismatch,
            Error::UserBanned(_) => Code::UserBanned,
            Error::Store(_) | Error::Log(_) => {
                tracing::error!(%error, "the store or the revocation log failed");
                return Self::new(Code::Unavailable, "the store cannot be reached; the same request may be sent again");
            }
            Error::Key(_) => {
                tracing::error!(%error, "a key cannot be used");
                return Self::internal();
            }
        };
        Self::new(code, error.to_string())
    }
}

fn data_invalid(violations: &[Violation]) -> Problem {
    let fields = violations.iter().map(FieldProblem::from).collect();
    Problem::new(Code::DataInvalid, "the data or claims do not fit the definition or the limits; see `fields`")
        .with(Members { fields, ..Members::default() })
}

impl From<&Violation> for FieldProblem {
    fn from(v: &Violation) -> Self {
        Self { field: v.path.clone(), detail: format!("expected {}, found {}", v.expected, v.found) }
    }
}

impl From<DefinitionProblems> for Problem {
    fn from(problems: DefinitionProblems) -> Self {
        let fields = problems.0.into_iter().map(|p| FieldProblem { field: p.field, detail: p.problem }).collect();
        Self::new(Code::InvalidRequest, "the definition is not valid; see `fields`")
            .with(Members { fields, ..Members::default() })
    }
}

//! A server whose models callers cannot change.

use std::future::Future;
use std::pin::Pin;

use api::{Control, Load};
use model::ErrorCode;

/// Refuses to load and unload by request, and says why.
pub struct Refusing(pub &'static str);

type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), (ErrorCode, String)>> + Send + 'a>>;

impl Refusing {
    fn answer(&self) -> Answer<'_> {
        let refusal = (ErrorCode::FailedPrecondition, self.0.to_owned());
        Box::pin(std::future::ready(Err(refusal)))
    }
}

impl Control for Refusing {
    fn load<'a>(&'a self, _name: &'a str, _load: Load) -> Answer<'a> {
        self.answer()
    }

    fn unload<'a>(&'a self, _name: &'a str) -> Answer<'a> {
        self.answer()
    }

    fn available(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}
